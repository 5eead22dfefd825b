# A server on your own PostgreSQL: docker run -e METERBOOK_URL=postgresql://… -p 8080:8080 meterbook
FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements-server.lock ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements-server.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/meterbook meterbook
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH METERBOOK_HOST=0.0.0.0 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/meterbook
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('METERBOOK_PORT', '8080')}/readyz\", timeout=2)"]
ENTRYPOINT ["meterbook"]
CMD ["serve"]
