"""bws.dispatch.tk"""

from __future__ import annotations

import sys

import pytest

from bws.testing import EchoServer
from tests.dispatch.programs import run

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture(params=["tk", "tk polling"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("how", ["root.destroy()", "root.tk.call('destroy', '.')"])
def test_the_window_may_be_destroyed_inside_a_handler(loop: str, how: str) -> None:
    """Nothing more is delivered, also of what came with the message."""
    with EchoServer() as server:
        run(
            loop,
            f"""
            got = []

            def on_message(evt):
                got.append(evt.data)
                if len(got) == 3:
                    {how}

            def start():
                global ws
                ws = bws.WebSocket(sys.argv[1], dispatch=loop())
                ws.bind("open", lambda: [ws.send(str(n)) for n in range(100)])
                ws.bind("message", on_message)
                ws.bind("close", lambda: got.append("close"))

            main(start)
            assert ws.wait_closed(20)
            assert got == ["0", "1", "2"], got
            no_thread_left()
            """,
            server.url,
        )
        assert server.next_close() == (1001, "")


def test_a_second_window_takes_only_its_own_sockets_with_it(loop: str) -> None:
    with EchoServer() as server:
        run(
            loop,
            """
            seen = []

            def start():
                global main_ws, top, top_ws
                top = tkinter.Toplevel(root)
                inner = tkinter.Frame(top)
                inner.pack()
                inner.bind("<Destroy>", print)      # what the program binds is its own
                top.bind("<Destroy>", lambda _: None)
                main_ws = bws.WebSocket(sys.argv[1], dispatch=bws.dispatch.tk(root))
                top_ws = bws.WebSocket(sys.argv[1], dispatch=bws.dispatch.tk(inner))
                top_ws.bind("open", destroy)
                top_ws.bind("close", lambda: seen.append("top"))
                main_ws.bind("message", lambda evt: seen.append(evt.data))
                main_ws.bind("message", lambda: main_ws.close())
                main_ws.bind("close", lambda: (seen.append("main"), quit()))

            def destroy():
                top.destroy()
                assert top_ws.readyState >= 2
                later(0.01, check)

            def check():
                if top_ws.readyState == 3 and main_ws.readyState == 1:
                    main_ws.send("still there")
                else:
                    later(0.01, check)

            main(start)
            assert seen == ["still there", "main"], seen
            """,
            server.url,
        )


def test_a_dialog_in_a_handler_does_not_stop_the_other_sockets(loop: str) -> None:
    run(
        loop,
        """
        seen = []

        def start():
            global a, b
            a = bws.WebSocket(server.url, dispatch=bws.dispatch.tk(root))
            b = bws.WebSocket(server.url, dispatch=bws.dispatch.tk(label))
            a.bind("open", lambda: (b.readyState == 1 and go()))
            b.bind("open", lambda: (a.readyState == 1 and go()))
            a.bind("message", dialog)
            b.bind("message", on_b)
            a.bind("close", lambda: (seen.append("closed"), quit()))

        def go():
            a.send("a1")
            a.send("a2")

        def dialog(evt):
            seen.append(evt.data)
            if evt.data == "a1":
                global top
                top = tkinter.Toplevel(root)
                b.send("b")
                root.wait_window(top)
                seen.append("dialog over")
            else:
                a.close()

        def on_b():
            seen.append("b")
            later(0.05, top.destroy)

        with EchoServer() as server:
            main(start)
        assert seen == ["a1", "b", "dialog over", "a2", "closed"], seen
        """,
    )


def test_a_socket_made_before_the_mainloop_waits_for_it(loop: str) -> None:
    run(
        loop,
        """
        with EchoServer() as server:
            seen = []
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.tk(root))
            ws.bind("open", lambda: seen.append("open"))
            ws.bind("open", lambda: ws.close())
            ws.bind("close", quit)
            wait_for(lambda: ws._delivery._count)       # it is there
            assert seen == []
            root.mainloop()
            assert seen == ["open"]
        """,
    )


def test_update_delivers_too(loop: str) -> None:
    run(
        loop,
        """
        with EchoServer() as server:
            seen = []
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.tk(root))
            ws.bind("open", lambda: seen.append("open"))
            wait_for(lambda: root.update() or seen)
            root.destroy()
            assert ws.wait_closed(20)
        """,
    )


def test_system_exit_in_a_handler_ends_the_program(loop: str) -> None:
    with EchoServer() as server:
        run(
            loop,
            """
            def start():
                ws = bws.WebSocket(sys.argv[1], dispatch=loop())
                ws.bind("open", lambda: sys.exit(5))

            main(start)
            """,
            server.url,
            status=5,
        )
        assert server.next_close() == (1001, "")


def test_the_same_widget_has_one_adapter_and_a_wrong_one_is_named() -> None:
    run(
        "tk",
        """
        def error(*args):
            try:
                bws.dispatch.tk(*args)
            except (TypeError, RuntimeError) as exc:
                return f"{type(exc).__name__}: {exc}"

        assert bws.dispatch.tk(root) is bws.dispatch.tk(root)
        assert bws.dispatch.tk(label) is not bws.dispatch.tk(root)
        assert repr(bws.dispatch.tk(label)) == "<bws.dispatch.tk(.!label)>"
        assert error("root") == "TypeError: widget must be a Tkinter widget, such as the root window; not str"
        said = []
        thread = threading.Thread(target=lambda: said.append(error(root)))
        thread.start()
        thread.join(20)
        assert said[0].startswith("RuntimeError: bws.dispatch.tk() must be called on the thread that made"), said
        label.destroy()
        assert error(label).startswith("RuntimeError: the widget is destroyed"), error(label)
        root.destroy()
        assert error(root).startswith("RuntimeError: the widget is destroyed"), error(root)
        """,
    )


def test_a_second_root_is_served_as_well(loop: str) -> None:
    run(
        loop,
        """
        other = tkinter.Tk()
        seen = []

        def start():
            global ws
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.tk(other))
            ws.bind("open", lambda: seen.append("open"))
            ws.bind("open", other.destroy)
            later(0.01, check)

        def check():
            if ws.readyState == 3:
                quit()
            else:
                later(0.01, check)

        with EchoServer() as server:
            main(start)
        assert seen == ["open"]
        """,
    )


def test_the_last_reference_to_a_window_may_be_dropped_on_another_thread(loop: str) -> None:
    """As by the network's thread. Tcl aborts the process when its interpreter ends on a thread that is not its own."""
    with EchoServer() as server:
        run(
            loop,
            """
            def window():
                other = tkinter.Tk()
                ws = bws.WebSocket(sys.argv[1], dispatch=bws.dispatch.tk(other))
                ws.bind("open", lambda: other.after(1, other.destroy))
                other.wait_window()
                assert ws.wait_closed(20)
                return [ws]

            for _ in range(3):
                sockets = window()
                thread = threading.Thread(target=lambda: (sockets.clear(), gc.collect()))
                thread.start()
                thread.join()
            ended = [pump for pump in sys.modules["bws.dispatch.tk"]._kept if pump.closed]
            assert len(ended) == 1, "a new window lets go of the ones before"
            root.destroy()
            """,
            server.url,
        )


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of this kind")
def test_a_program_with_more_descriptors_than_tcl_can_wait_for_is_served_as_well() -> None:
    run(
        "tk",
        """
        import resource
        root.update()       # Tcl itself wants low ones
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, most))
        many = [os.dup(0) for _ in range(1100)]
        seen = []
        with EchoServer() as server:
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.tk(root))
            ws.bind("open", lambda: (seen.append("open"), ws.close()))
            ws.bind("close", lambda: (seen.append("close"), quit()))
            root.mainloop()
            assert ws.wait_closed(20)
        assert max(many) > 1024
        assert seen == ["open", "close"], seen
        """,
    )
