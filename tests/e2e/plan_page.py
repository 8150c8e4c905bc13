#!/usr/bin/env python3
"""The plan's page and figures in a headless browser: the page computes what the program computes, for any slider.

usage: plan_page.py NAUTILE [CHROMIUM]
Needs chromium; part of `make test-all`, not of `make test`. Exit 77 when there is no browser.
"""
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAM = sys.argv[1]
BROWSER = sys.argv[2] if len(sys.argv) > 2 else next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    print("no chromium: the page was not checked")
    sys.exit(77)
BASE = {"--hw": "gb300-nvl4-tray:4", "--min-tps": "40", "--rate": "6", "--users": "500", "--today": "2026-11-24"}
failures = []


def program(flags, *more):
    pairs = [word for pair in {**BASE, **flags}.items() for word in pair]
    done = subprocess.run([PROGRAM, "plan", *pairs, *more], capture_output=True, text=True, check=True)
    return done.stdout


def browse(url, *flags):
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", *flags, url],
                          capture_output=True, text=True, timeout=180, check=True)
    return done.stdout


def close(a, b):
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b))


with tempfile.TemporaryDirectory() as folder:
    page, svg, shot = (pathlib.Path(folder, name) for name in ("plan.html", "plan.svg", "shot.png"))
    program({"--html": str(page), "--plot": str(svg)})
    # The sliders, by the page's fragment, against the same flags of the program.
    cases = [("", {}),
             ("#hit=0.2&mode=10", {"--hit": "0.2", "--mode": "max"}),
             ("#rate=2.652&mode=1", {"--rate": "2.652", "--mode": "non-think"}),
             ("#stack=2.5&hit=0", {"--stack-factor": "2.5", "--hit": "0"})]
    for fragment, flags in cases:
        want = json.loads(program(flags, "--json"))["cost"]
        dom = browse(page.as_uri() + fragment, "--dump-dom")
        found = re.search(r'<pre id="numbers"[^>]*>(.*?)</pre>', dom, re.S)
        if not found or not found.group(1):
            failures.append(f"{fragment}: the page computed nothing")
            continue
        got = json.loads(html.unescape(found.group(1)))
        for key in ("device_seconds", "capacity_per_hour", "self_usd_per_hour", "self_usd_per_request_full", "hosted_usd_per_request",
                    "break_even_per_hour", "break_even_use", "break_even_mtok_per_day"):
            if not close(got[key], want[key]):
                failures.append(f"{fragment or 'start'} {key}: page {got[key]}, program {want[key]}")
        if dom.count("<polyline") < 6:
            failures.append(f"{fragment}: {dom.count('<polyline')} curves on the page")
    for source in (page, svg):
        browse(source.as_uri(), f"--screenshot={shot}", "--window-size=1200,1600")
        if shot.stat().st_size < 20000:
            failures.append(f"{source.name} draws next to nothing ({shot.stat().st_size} bytes)")
        if len(sys.argv) > 3:
            shutil.copy(shot, pathlib.Path(sys.argv[3], source.name + ".png"))

print("\n".join(failures) or "the page computes what the program computes")
sys.exit(1 if failures else 0)
