"""Sections of the documentation that a measurement writes, between two comments."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def write_section(page: str, name: str, content: str):
    path = ROOT / page
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = path.read_text()
    if begin not in text:
        sys.exit(f"{path} has no place for the table ({begin})")
    head, _, rest = text.partition(begin)
    path.write_text(f"{head}{begin}\n{content.strip()}\n{end}{rest.partition(end)[2]}")
