import asyncio
import select
import selectors

from loadtest import eventloop


def test_the_loop_waits_as_long_as_it_was_asked_to_not_a_millisecond_more(monkeypatch):
    exact_waits, rounded_waits = [], []
    real_select, real_epoll = select.select, selectors.EpollSelector.select

    def spy_select(readers, writers, others, timeout):
        exact_waits.append(timeout)
        return real_select(readers, writers, others, 0)

    def spy_epoll(selector, timeout=None):
        rounded_waits.append(timeout)
        return real_epoll(selector, timeout)

    monkeypatch.setattr(select, "select", spy_select)
    monkeypatch.setattr(selectors.EpollSelector, "select", spy_epoll)
    eventloop.run(asyncio.sleep(0.0001))
    assert 0 < max(exact_waits) <= 0.0001
    assert max(rounded_waits) == 0  # epoll rounds up to a millisecond, so it must not wait


def test_the_loop_answers_sockets_and_returns_what_its_task_returns():
    async def talk():
        async def serve(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answer

    assert eventloop.run(talk()) == b"hello\n"
