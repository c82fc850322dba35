"""Programs with a loop, run in a process of their own: two Qts, or a Tk and a Qt, do not go together."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.dispatch.nursery import nursery

TIMEOUT = 50.0  # s for a program; only one that fails takes so long

ROOT = Path(__file__).resolve().parents[2]

# What each program starts with: `main(start)` runs the loop, `start()` is called in it; `loop()` makes what is given
# to `dispatch=`; `later(seconds, call)` is a timer; `quit()` ends the loop; `hook(list)` collects what is reported.
COMMON = """
import asyncio, gc, os, signal, sys, threading, time
import bws
from bws.testing import EchoServer
from tests.wire.frames import BINARY, TEXT, frame
from tests.wire.server import ScriptedServer

def no_thread_left():
    end = time.monotonic() + 20
    while any(t.name.startswith("bws") and t.name != "bws relief" for t in threading.enumerate()):
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)

def wait_for(predicate):
    end = time.monotonic() + 20
    while not predicate():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.005)
"""

TK = """
import tkinter
root = tkinter.Tk()
label = tkinter.Label(root, text="-")
label.pack()
show = lambda text: label.configure(text=text)
drawn = []  # Tk draws when it has nothing else to do

def watch():
    root.after_idle(lambda: (drawn.append(1), root.after(5, watch)))

watch()

def main(start):
    root.after(0, start)
    root.mainloop()

def loop():
    return bws.dispatch.tk(root)

def later(seconds, call):
    root.after(round(seconds * 1000), call)

def quit():
    root.destroy()

def hook(reported):
    root.report_callback_exception = lambda kind, exc, tb: reported.append(exc)
"""

# as on Windows, where Tk cannot wait for a descriptor
TK_POLLING = (
    TK
    + """
from bws.dispatch import _pump
module = sys.modules["bws.dispatch.tk"]
module._pumps[root] = module.TkPump(root, polling=True)
"""
)

QT = """
from BINDING import QtCore, QtWidgets
app = QtWidgets.QApplication([])
drawn = []

class Label(QtWidgets.QLabel):
    def paintEvent(self, event):
        drawn.append(1)
        super().paintEvent(event)

label = Label("-")
label.show()
show = label.setText

def main(start):
    QtCore.QTimer.singleShot(0, start)
    app.exec()

def loop():
    return bws.dispatch.qt()

def later(seconds, call):
    QtCore.QTimer.singleShot(round(seconds * 1000), call)

def quit():
    app.quit()

def hook(reported):
    sys.excepthook = lambda kind, exc, tb: reported.append(exc)
"""

ASYNCIO = """
drawn = None
show = lambda text: None

async def _main(start):
    global _ended
    _ended = asyncio.Event()
    start()
    await _ended.wait()

def main(start):
    asyncio.run(_main(start))

def loop():
    return bws.dispatch.asyncio()

def later(seconds, call):
    asyncio.get_running_loop().call_later(seconds, call)

def quit():
    _ended.set()

def hook(reported):
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
"""

PRELUDES = {
    "tk": TK,
    "tk polling": TK_POLLING,
    "PySide6": QT.replace("BINDING", "PySide6"),
    "PyQt6": QT.replace("BINDING", "PyQt6"),
    "asyncio": ASYNCIO,
}
if sys.platform != "win32":
    PRELUDES["uvloop"] = ASYNCIO.replace("asyncio.run(", "__import__('uvloop').run(")
LOOPS = list(PRELUDES)
# What is imported once for all programs of a loop, where a process that has loaded the toolkit may be forked.
SHARED = ("bws.testing", "tests.wire.server")
TOOLKITS = {"tk": "tkinter", "tk polling": "tkinter", "PySide6": "PySide6.QtWidgets", "PyQt6": "PyQt6.QtWidgets"}
FORKS = sys.platform == "linux"


def run(loop: str, code: str, *args: str, status: int = 0, stderr: str = "") -> str:
    """Run a program to its end; what it prints. It may print nothing on stderr but `stderr`."""
    # Errors that Python can only print, such as those in __del__, fail as well: -W error.
    program = COMMON + PRELUDES[loop] + textwrap.dedent(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": "/tmp"}
    if FORKS:
        done = nursery(*SHARED, TOOLKITS.get(loop, loop)).run(program, args, env, TIMEOUT)
    else:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *args],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
    told = f"status {done.returncode}, not {status}; it printed:\n{done.stdout}{done.stderr}"
    assert (done.returncode, done.stderr) == (status, stderr), told
    return done.stdout
