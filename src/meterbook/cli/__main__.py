from meterbook.cli.app import main

main()
