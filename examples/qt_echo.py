"""An echo window made with Qt: `python qt_echo.py [URL]`; without a URL it starts a server of its own."""

import sys
from contextlib import ExitStack
from html import escape
from time import strftime

# With PyQt6 instead: from PyQt6.QtGui import ..., and likewise; nothing else changes.
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QApplication, QGridLayout, QLabel, QLineEdit, QPushButton, QTextEdit, QWidget

import bws
from bws.testing import EchoServer

STATES = ("Connecting", "Open", "Closing", "Closed")  # by readyState
COLOURS = {"time": "#7c8696", "note": "#7c8696", "sent": "#2b6cb0", "received": "#2f855a", "error": "#c53030"}


class EchoWindow(QWidget):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.setWindowTitle("WebSocket echo")
        self.ws: bws.WebSocket | None = None
        self.dispatch = bws.dispatch.qt()  # has the handlers called in the thread of this window

        self.url_entry = QLineEdit(url)
        self.open_button = QPushButton("Open connection")
        self.close_button = QPushButton("Close connection")
        self.log = QTextEdit(readOnly=True)
        self.message_entry = QLineEdit()
        self.send_button = QPushButton("Send")
        self.state_label = QLabel()
        self.lay_out()
        self.show_state()

        self.open_button.clicked.connect(self.open_connection)
        self.send_button.clicked.connect(self.send)
        self.close_button.clicked.connect(self.close_connection)
        # Enter opens, and sends; a disabled button does nothing
        self.url_entry.returnPressed.connect(self.open_button.click)
        self.message_entry.returnPressed.connect(self.send_button.click)
        QShortcut(QKeySequence("Escape"), self, self.close_connection)

    def lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(16, 16, 16, 12)
        grid.setSpacing(10)
        grid.setColumnStretch(0, 1)  # the entries get the room that there is, and the log, which has no fixed height
        grid.addWidget(self.url_entry, 0, 0)
        grid.addWidget(self.open_button, 0, 1)
        grid.addWidget(self.close_button, 0, 2)
        grid.addWidget(self.log, 1, 0, 1, 3)
        grid.addWidget(self.message_entry, 2, 0, 1, 2)
        grid.addWidget(self.send_button, 2, 2)
        grid.addWidget(self.state_label, 3, 0)
        self.setStyleSheet("QPushButton { padding: 6px 12px } QLineEdit { padding: 5px 4px }")
        self.resize(640, 400)
        self.log.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.log.document().setMaximumBlockCount(1000)  # the log of a long day stays quick
        self.log.document().setDocumentMargin(8)

    def open_connection(self) -> None:
        try:
            ws = bws.WebSocket(self.url_entry.text(), dispatch=self.dispatch)
        except (bws.DOMSyntaxError, NotImplementedError) as error:  # no such address; no websocket-client
            self.write("error", str(error))
            return
        if self.ws:  # it may be connecting or closing still
            self.ws.close()
        self.ws = ws
        ws.bind("open", self.show_state)
        ws.bind("open", self.message_entry.setFocus)
        ws.bind("message", lambda evt: self.write("received", f"← {evt.data}"))
        ws.bind("error", lambda evt: self.write("error", evt.message))
        ws.bind("close", lambda evt: self.write("note", f"Connection is closed: {evt.code} {evt.reason}"))
        ws.bind("close", self.show_state)
        self.show_state()

    def send(self) -> None:
        if self.ws and (text := self.message_entry.text()):
            self.ws.send(text)
            self.write("sent", f"→ {text}")
            self.message_entry.clear()

    def close_connection(self) -> None:
        if self.ws:
            self.ws.close()
            self.show_state()
            self.url_entry.setFocus()

    def show_state(self) -> None:
        state = self.ws.readyState if self.ws else bws.WebSocket.CLOSED
        is_open = state == bws.WebSocket.OPEN
        self.state_label.setText(f"● {STATES[state]}")
        self.state_label.setStyleSheet(f"color: {COLOURS['received' if is_open else 'note']}")
        self.open_button.setDisabled(is_open)
        self.send_button.setEnabled(is_open)
        self.close_button.setEnabled(is_open)

    def write(self, kind: str, text: str) -> None:
        time = f"<span style='color: {COLOURS['time']}'>{strftime('%H:%M:%S')}</span>"
        text = escape(text[:1000].rstrip()).replace("\n", "<br>")
        style = f"margin: 0; line-height: 140%; white-space: pre-wrap; color: {COLOURS[kind]}"
        self.log.append(f"<p style='{style}'>{time}   {text}</p>")


def main() -> None:
    app = QApplication(sys.argv)
    with ExitStack() as stack:
        url = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(EchoServer(keep_messages=False)).url
        window = EchoWindow(url)
        window.show()
        app.exec()


if __name__ == "__main__":
    main()
