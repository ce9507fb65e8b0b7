"""What a browser makes of a report's page: scripts that run in it and tell what they found."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

SCRIPT = """
<script>
const until = async (is) => {{ while (!is()) await new Promise((next) => setTimeout(next, 50)); }};
(async () => {{
  const told = {{}};
  {body}
  document.body.dataset.told = JSON.stringify(told);
}})();
</script>
"""


def told_by_browser(report, script, folder):
    """What a script put into `told` in the page `report.html` of a report's folder.

    The script may wait with `await until(() => condition)`; `folder` holds the browser's files.
    """
    page = folder / "page.html"
    page.write_text((report / "report.html").read_text() + SCRIPT.format(body=script))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
         f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    (told,) = re.findall(r'<body data-told="([^"]*)"', done.stdout)
    return json.loads(unescape(told))
