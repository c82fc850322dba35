"""bws.dispatch.qt"""

from __future__ import annotations

import os

import pytest

from bws.testing import EchoServer
from tests.conftest import run_python
from tests.dispatch.programs import run

TIMES = 100 if os.environ.get("BWS_STRESS") == "1" else 2  # that are tried what a race could break


@pytest.fixture(params=["PySide6", "PyQt6"])
def binding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_without_qt_the_error_says_what_is_missing(binding: str) -> None:
    done = run_python(
        f"""
        import bws

        def error():
            try:
                bws.dispatch.qt()
            except RuntimeError as exc:
                return str(exc)

        print(error())
        import {binding}.QtCore
        print(error())
        """
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "bws.dispatch.qt() works with PySide6, PyQt6, PyQt5, none of which the program has imported",
        f"bws.dispatch.qt() needs the QApplication ({binding}), which must be made before",
    ]


@pytest.mark.parametrize("first", ["PySide6", "PyQt6"])
def test_with_two_bindings_imported_it_works(first: str) -> None:
    done = run_python(
        f"""
        import PySide6.QtCore, PyQt6.QtCore
        import bws
        from bws.testing import EchoServer

        app = {first}.QtCore.QCoreApplication([])
        with EchoServer() as server:
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())
            ws.bind("open", lambda: ws.close())
            ws.bind("close", app.quit)  # a method without a signature
            app.exec()
            print(ws.readyState)
        """
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


@pytest.mark.parametrize("opened", [True, False], ids=["open", "not delivered"])
def test_an_application_that_is_deleted_closes_its_sockets(binding: str, opened: bool) -> None:
    with EchoServer() as server:
        for _ in range(TIMES):
            run(
                binding,
                f"""
                ws = bws.WebSocket(sys.argv[1], dispatch=bws.dispatch.qt())
                if {opened}:
                    wait_for(lambda: app.processEvents() or ws.readyState == 1)
                else:
                    wait_for(lambda: ws._delivery._count)
                del label
                if hasattr(app, "shutdown"):    # PySide6
                    app.shutdown()
                del app
                assert ws.wait_closed(20)
                assert ws.readyState == 3
                no_thread_left()
                """,
                server.url,
            )
            assert server.next_close() == (1001, "")


def test_a_second_run_of_the_application_takes_new_sockets(binding: str) -> None:
    run(
        binding,
        """
        seen = []

        def start():
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())
            ws.bind("open", lambda: (seen.append("open"), ws.close()))
            ws.bind("close", lambda: (seen.append("close"), quit()))

        with EchoServer() as server:
            main(start)
            main(start)
        assert seen == ["open", "close"] * 2, seen
        """,
    )


def test_a_method_that_the_event_does_not_fit_says_so_and_one_of_nothing_is_called(binding: str) -> None:
    run(
        binding,
        """
        reported = []
        timer = QtCore.QTimer(singleShot=True, interval=0)
        timer.timeout.connect(quit)
        button = QtWidgets.QPushButton()
        clicked = []
        button.clicked.connect(lambda: clicked.append(1))

        def start():
            hook(reported)
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())
            ws.bind("open", lambda: (ws.send("a"), ws.send("b")))
            ws.bind("message", label.setText)
            ws.bind("message", button.click)
            ws.bind("message", label.update)    # it has a form that takes nothing, and others
            ws.bind("message", lambda evt: evt.data == "b" and ws.close())
            ws.bind("close", timer.start)       # as this one has

        with EchoServer() as server:
            main(start)
        assert label.text() == "-", label.text()
        assert len(clicked) == 2, clicked
        assert [type(exc) for exc in reported] == [TypeError] * 2, reported
        for exc in reported:
            assert "MessageEvent" in str(exc) and "setText" in str(exc) and "got the event" in str(exc), exc
        """,
    )


def test_it_may_be_made_on_another_thread(binding: str) -> None:
    run(
        binding,
        """
        seen = []

        def connect():
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())
            ws.bind("open", lambda: (seen.append(threading.current_thread() is threading.main_thread()), ws.close()))
            ws.bind("close", quit)

        with EchoServer() as server:
            main(lambda: threading.Thread(target=connect).start())
        assert seen == [True], seen
        """,
    )


def test_waiting_is_refused_before_the_first_event_also_when_another_thread_made_the_adapter(binding: str) -> None:
    run(
        binding,
        """
        def connect():
            global ws
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())

        def refused(wait):
            try:
                wait(20)
            except RuntimeError as exc:
                return "could not happen" in str(exc)

        with EchoServer() as server:
            thread = threading.Thread(target=connect)
            thread.start()
            thread.join(20)
            assert refused(ws.wait_open)
            assert refused(ws.wait_closed)
            thread = threading.Thread(target=ws.wait_open, args=(20,))
            thread.start()
            wait_for(lambda: app.processEvents() or not thread.is_alive())
            assert ws.readyState == 1
        """,
    )


def test_a_dialog_in_a_handler_does_not_stop_the_other_sockets(binding: str) -> None:
    run(
        binding,
        """
        seen = []

        def start():
            global a, b, dialog
            dialog = QtWidgets.QDialog()
            a = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())
            b = bws.WebSocket(server.url, dispatch=bws.dispatch.qt())
            b.bind("message", lambda: (seen.append("b"), dialog.accept()))
            a.bind("open", lambda: b.readyState == 1 and a.send("a"))
            b.bind("open", lambda: a.readyState == 1 and a.send("a"))
            a.bind("message", on_a)

        def on_a():
            b.send("b")
            dialog.exec()
            seen.append("dialog over")
            quit()

        with EchoServer() as server:
            main(start)
        assert seen == ["b", "dialog over"], seen
        """,
    )
