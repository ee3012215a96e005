"""`laotie results`: every measured table of docs/results.md from one command, part by part, resumable."""
