"""An echo window made with Tkinter: `python tk_echo.py [URL]`; without a URL it starts a server of its own."""

import ctypes
import sys
import tkinter as tk
from contextlib import ExitStack
from time import strftime
from tkinter import ttk
from tkinter.scrolledtext import ScrolledText

import bws
from bws.testing import EchoServer

STATES = ("Connecting", "Open", "Closing", "Closed")  # by readyState
COLOURS = {"time": "#7c8696", "note": "#7c8696", "sent": "#2b6cb0", "received": "#2f855a", "error": "#c53030"}


class EchoWindow(tk.Tk):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.title("WebSocket echo")
        self.ws: bws.WebSocket | None = None
        self.dispatch = bws.dispatch.tk(self)  # has the handlers called in the thread of this window
        self.body = ttk.Frame(self, padding="12p")
        self.url_entry = ttk.Entry(self.body, width=36)
        self.open_button = ttk.Button(self.body, text="Open connection", command=self.open_connection)
        self.close_button = ttk.Button(self.body, text="Close connection", command=self.close_connection)
        self.log = ScrolledText(self.body, width=66, height=13, font="TkTextFont", wrap="word", state="disabled")
        self.message_entry = ttk.Entry(self.body)
        self.send_button = ttk.Button(self.body, text="Send", command=self.send_message)
        self.state_label = ttk.Label(self.body)
        self.lay_out()
        self.show_state()
        for key in ("<Return>", "<KP_Enter>"):  # Enter opens, and sends; a disabled button does nothing
            self.url_entry.bind(key, lambda _: self.open_button.invoke())
            self.message_entry.bind(key, lambda _: self.send_button.invoke())
        self.bind("<Escape>", lambda _: self.close_connection())
        self.url_entry.insert(0, url)
        self.url_entry.focus_set()

    def lay_out(self) -> None:
        self.minsize(self.winfo_pixels("300p"), self.winfo_pixels("150p"))  # smaller, and buttons would be cut off
        self.body.pack(fill="both", expand=True)
        self.body.columnconfigure(0, weight=1)  # the entries and the log get the room that there is
        self.body.rowconfigure(1, weight=1)
        self.url_entry.grid(row=0, column=0, sticky="nsew")
        self.open_button.grid(row=0, column=1, padx="6p")
        self.close_button.grid(row=0, column=2)
        self.log.grid(row=1, column=0, columnspan=3, sticky="nsew", pady="8p")
        self.message_entry.grid(row=2, column=0, columnspan=2, sticky="nsew", padx=(0, "6p"))
        self.send_button.grid(row=2, column=2, sticky="ew")
        self.state_label.grid(row=3, column=0, sticky="w", pady=("8p", 0))
        self.log.configure(padx="8p", pady="6p", spacing3="3p", relief="flat", highlightthickness=0)
        for kind, colour in COLOURS.items():
            self.log.tag_configure(kind, foreground=colour, lmargin2="55p")
        if self.tk.call("tk", "windowingsystem") == "x11":  # macOS and Windows look well as they are
            style = ttk.Style(self)
            style.theme_use("clam")
            style.configure(".", background="#f4f5f7", bordercolor="#cbd2dc", lightcolor="white", darkcolor="white")
            style.configure("TButton", background="white", padding="8p 3p")
            style.map("TButton", background=[("disabled", "#f4f5f7"), ("active", "#e8eef7")])
            style.configure("TEntry", padding="4p")
            self.log.vbar.configure(background="#cbd2dc", troughcolor="white", relief="flat", width="7p", border=0)

    def open_connection(self) -> None:
        try:
            ws = bws.WebSocket(self.url_entry.get(), dispatch=self.dispatch)
        except (bws.DOMSyntaxError, NotImplementedError) as error:  # no such address; no websocket-client
            self.write("error", str(error))
            return
        if self.ws:  # it may be connecting or closing still
            self.ws.close()
        self.ws = ws
        ws.bind("open", self.show_state)
        ws.bind("open", self.message_entry.focus_set)
        ws.bind("message", lambda evt: self.write("received", f"← {evt.data}"))
        ws.bind("error", lambda evt: self.write("error", evt.message))
        ws.bind("close", lambda evt: self.write("note", f"Connection is closed: {evt.code} {evt.reason}"))
        ws.bind("close", self.show_state)
        self.show_state()

    def send_message(self) -> None:
        if self.ws and (text := self.message_entry.get()):
            self.ws.send(text)
            self.write("sent", f"→ {text}")
            self.message_entry.delete(0, "end")

    def close_connection(self) -> None:
        if self.ws:
            self.ws.close()
            self.show_state()
            self.url_entry.focus_set()

    def show_state(self) -> None:
        state = self.ws.readyState if self.ws else bws.WebSocket.CLOSED
        is_open = state == bws.WebSocket.OPEN
        self.state_label.configure(text=f"● {STATES[state]}", foreground=COLOURS["received" if is_open else "note"])
        self.open_button.configure(state="disabled" if is_open else "normal")
        for button in (self.send_button, self.close_button):
            button.configure(state="normal" if is_open else "disabled")

    def write(self, kind: str, text: str) -> None:
        self.log.configure(state="normal")
        self.log.insert("end", strftime("%H:%M:%S   "), "time", text[:1000].rstrip().replace("\0", "␀") + "\n", kind)
        self.log.delete("1.0", "end - 1000 lines")  # the log of a long day stays quick
        self.log.configure(state="disabled")
        self.log.see("end")


def main() -> None:
    if sys.platform == "win32":  # sharp letters on a screen with many dots
        ctypes.windll.shcore.SetProcessDpiAwareness(1)
    with ExitStack() as stack:
        url = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(EchoServer(keep_messages=False)).url
        EchoWindow(url).mainloop()


if __name__ == "__main__":
    main()
