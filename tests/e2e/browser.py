"""browser: Chromium without a window, spoken to in its DevTools protocol.

    with Browser() as browser:
        page = browser.open(url)
        page.run("return document.title")

All that it writes goes to a temporary folder, and it asks nobody outside of this
machine anything.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import harness

CHROMIUM = shutil.which("chromium")

# Without the sandbox, which root can't have, nor most containers; it sees only pages of the tests.
OPTIONS = ("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
           "--disable-dev-shm-usage", "--no-first-run",
           "--no-default-browser-check", "--no-proxy-server", "--no-pings", "--mute-audio",
           "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
           "--disable-extensions", "--disable-sync", "--disable-breakpad", "--password-store=basic",
           "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--window-size=1000,700")


class Refused(AssertionError):
    """The browser did not do what it was told to; as when the page has gone elsewhere meanwhile."""


class Browser(harness.Program):
    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="tristero-e2e-", ignore_cleanup_errors=True)
        self._calls = 0
        options = [*OPTIONS, f"--user-data-dir={self._folder.name}/profile"]
        # It listens on descriptor 3 and answers on 4.
        super().__init__(["/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh",
                          CHROMIUM, *options, "about:blank"],
                         env={"HOME": self._folder.name, "TMPDIR": self._folder.name,
                              "XDG_RUNTIME_DIR": self._folder.name,
                              "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
                         stdin=subprocess.PIPE, start_new_session=True)
        self.name = "chromium"

    def call(self, method, session=None, timeout_s=harness.WAIT_S, **parameters):
        """The answer. What happened meanwhile and was not asked for is passed over."""
        self._calls += 1
        question = {"id": self._calls, "method": method, "params": parameters}
        if session:
            question["sessionId"] = session
        self.process.stdin.write(json.dumps(question).encode() + b"\0")
        self.process.stdin.flush()
        deadline = time.monotonic() + timeout_s
        while True:
            answer = json.loads(self.line(max(deadline - time.monotonic(), 0), end=b"\0"))
            if answer.get("id") == self._calls:
                break
        if "error" in answer:
            raise Refused(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url):
        """A page that has loaded, with all that is in it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        page.go(url)
        return page

    def clean_up(self):
        if self._errors.closed:
            return
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError, OSError):
                self.call("Browser.close", timeout_s=5)
                self.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)     # those that it started, too
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        super().clean_up()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clean_up()


class Page:
    def __init__(self, browser, session):
        self._browser, self._session = browser, session

    def _call(self, method, **parameters):
        return self._browser.call(method, self._session, **parameters)

    def go(self, url):
        answer = self._call("Page.navigate", url=url)
        if "errorText" in answer:
            raise AssertionError(f"{url}: {answer['errorText']}")
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, script, timeout_s=harness.WAIT_S):
        """What the body of an asynchronous function returns in the page."""
        answer = self._call("Runtime.evaluate", expression=f"(async () => {{ {script} }})()",
                            awaitPromise=True, returnByValue=True, timeout_s=timeout_s)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition):
        """Its first true value, in this page or the one that takes its place."""
        def look():
            with contextlib.suppress(Refused):
                return self.run(f"return {condition}")

        return harness.wait_until(look, condition)

    def be_shown_on(self, width, height):
        """A phone of that size."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                   deviceScaleFactor=1, mobile=True)

    def be_shown_in_the_dark(self):
        self._call("Emulation.setEmulatedMedia",
                   features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def screenshot(self):
        """A PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
