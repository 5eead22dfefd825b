// The local time beside each UTC time. Everything else works without a script.
(() => {
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
  const tell = (root) => {
    for (const each of root.querySelectorAll("time[datetime]:not([data-told])")) {
      const said = document.createElement("span");
      said.className = "local";
      said.textContent = local.format(new Date(each.dateTime));
      said.title = "your time";
      each.append(said);
      each.dataset.told = "";
    }
  };
  tell(document);
  document.addEventListener("htmx:afterSettle", () => tell(document));
})();
