"""The gate and the worker: what is refused, what is done together, and what is left of failures."""

import asyncio
import threading

import pytest

from jaxcxr.deploy.serve.limits import Gate, Limits, Refusal
from jaxcxr.deploy.serve.resources import Job, Worker


def test_the_gate_refuses_the_next_and_opens_again():
    async def check():
        gate = Gate(Limits(waiting=2))
        async with gate.enter(), gate.enter():
            with pytest.raises(Refusal) as found:
                async with gate.enter():
                    pytest.fail("let in")
            assert (found.value.status, found.value.retry) == (503, 1)
            assert gate.inside == 2
        assert gate.inside == 0
        async with gate.enter():
            assert gate.inside == 1

    asyncio.run(check())


def test_the_gate_ends_what_takes_too_long():
    async def check():
        gate = Gate(Limits(seconds=0.05))
        with pytest.raises(Refusal, match=r"not done within 0\.05 s") as found:
            async with gate.enter():
                await asyncio.sleep(10)
        assert found.value.status == 503
        assert gate.inside == 0

    asyncio.run(check())


class Slow:
    """A job that waits until it is let go, and remembers its batches."""

    def __init__(self, together):
        self.go, self.batches = threading.Event(), []
        self.job = Job(self.work, together)

    def work(self, items):
        assert self.go.wait(10)
        self.batches.append(list(items))
        if "bad" in items:
            raise ValueError("bad")
        return [item * 2 for item in items]


def test_what_waits_together_is_one_batch_in_the_order_of_arrival():
    async def check():
        worker, slow, other = Worker(20), Slow(3), Slow(1)
        other.go.set()
        tasks = [asyncio.create_task(worker.call(slow.job, i)) for i in range(2)]
        await asyncio.sleep(0.05)  # the first two are at work
        tasks += [asyncio.create_task(worker.call(slow.job, i)) for i in range(2, 4)]
        tasks.append(asyncio.create_task(worker.call(other.job, 10)))
        tasks += [asyncio.create_task(worker.call(slow.job, i)) for i in range(4, 6)]
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 20, 8, 10]
        assert slow.batches == [[0, 1], [2, 3, 4], [5]]
        worker.close()

    asyncio.run(check())


def test_a_full_queue_refuses_and_who_gave_up_is_not_computed():
    async def check():
        worker, slow = Worker(2), Slow(1)
        tasks = [asyncio.create_task(worker.call(slow.job, 0))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(worker.call(slow.job, i)) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as found:
            await worker.call(slow.job, 3)
        assert found.value.status == 503
        tasks[1].cancel()
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(tasks[0], tasks[2]) == [0, 4]
        assert slow.batches == [[0], [2]]
        worker.close()

    asyncio.run(check())


def test_a_failure_is_told_to_its_batch_alone():
    async def check():
        worker, slow = Worker(9), Slow(1)
        slow.go.set()
        tasks = [asyncio.create_task(worker.call(slow.job, item)) for item in (1, "bad", 3)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[0::2] == [2, 6]
        assert isinstance(found[1], ValueError)
        worker.close()

    asyncio.run(check())
