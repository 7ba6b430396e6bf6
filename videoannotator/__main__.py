"""`python -m videoannotator` is the console command."""

from videoannotator.cli import main

raise SystemExit(main())
