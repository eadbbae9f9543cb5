"""What Python programs do with Redis: redis-py with its default settings, and two job queues on top of it.

Usage: smoke.py HOST PORT. Says what it is about to try, and ends with a traceback at the first thing that is not as with Redis.
The database is emptied at the start.
"""

import asyncio
import faulthandler
import sys
import threading
import time

import dramatiq
import redis
import redis.asyncio
from dramatiq.brokers.redis import RedisBroker
from huey import RedisHuey

# For what happens in milliseconds unless it never happens.
PATIENCE_S = 20
# For the whole program. Whatever hangs is then shown.
PROGRAM_LIMIT_S = 120
# How long a call blocks when nothing comes. Long enough to be told from an answer at once.
SHORT_WAIT_S = 0.2


class Program:
    """One run: where the server is, and a client with default settings."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.client = self.connect()

    def connect(self, **settings):
        return redis.Redis(host=self.host, port=self.port, **settings)

    def values(self):
        text = self.connect(decode_responses=True)
        assert text.set("greeting", "hello", ex=100, nx=True) is True
        assert text.set("greeting", "again", nx=True) is None
        assert text.get("greeting") == "hello" and 0 < text.ttl("greeting") <= 100
        assert self.client.get("greeting") == b"hello"
        assert text.incrbyfloat("amount", 10.5) == 10.5
        assert text.hset("user", mapping={"name": "Ada", "age": 36}) == 2
        assert text.hgetall("user") == {"name": "Ada", "age": "36"}
        assert text.zadd("scores", {"one": 1, "two": 2.5}) == 2
        assert text.zrange("scores", 0, -1, withscores=True) in ([("one", 1.0), ("two", 2.5)], [["one", 1.0], ["two", 2.5]])
        assert text.sadd("set", "a", "b", "c") == 3 and text.smembers("set") == {"a", "b", "c"}
        assert text.geoadd("cities", (13.361389, 38.115556, "Palermo")) == 1
        assert text.client_setname("smoke") and text.client_getname() == "smoke"
        assert any(client["name"] == "smoke" for client in text.client_list())
        assert text.info("server")["redis_version"].startswith("7.")
        assert text.config_get("maxmemory") == {"maxmemory": "0"}
        assert text.command_count() > 150
        try:
            text.lpush("greeting", "x")
        except redis.ResponseError as error:
            assert str(error) == "WRONGTYPE Operation against a key holding the wrong kind of value", error
        else:
            raise AssertionError("a list operation on a string was carried out")

    def both_protocols(self):
        for protocol in (2, 3):
            client = self.connect(protocol=protocol, decode_responses=True)
            client.hset("protocol", mapping={"a": "1"})
            assert client.hgetall("protocol") == {"a": "1"}
            assert client.sismember("protocol set", "a") in (0, False)
            assert client.get("no such key") is None
            client.close()

    def expiry(self):
        self.client.set("brief", "x", px=50)
        deadline = time.monotonic() + PATIENCE_S
        while self.client.exists("brief"):
            assert time.monotonic() < deadline, "a key outlived its time"
            time.sleep(0.01)

    def pipelines(self):
        with self.client.pipeline(transaction=False) as pipeline:
            for number in range(1000):
                pipeline.set(f"pipelined:{number}", number)
            pipeline.lpush("pipelined:0", "x").get("pipelined:999")
            replies = pipeline.execute(raise_on_error=False)
        assert replies[:1000] == [True] * 1000 and replies[1001] == b"999"
        assert isinstance(replies[1000], redis.ResponseError), replies[1000]

    def transactions(self):
        self.client.set("balance", 10)
        with self.client.pipeline() as pipeline:
            assert pipeline.incr("balance").get("balance").execute() == [11, b"11"]
        with self.client.pipeline() as pipeline:
            pipeline.watch("balance")
            self.connect().incr("balance")  # from another connection
            pipeline.multi()
            pipeline.set("balance", 0)
            try:
                pipeline.execute()
            except redis.WatchError:
                pass
            else:
                raise AssertionError("a transaction went through although its watched key had changed")

        def double(pipeline):
            balance = int(pipeline.get("balance"))
            pipeline.multi()
            pipeline.set("balance", balance * 2)

        assert self.client.transaction(double, "balance") == [True]
        assert self.client.get("balance") == b"24"

    def messages(self):
        with self.client.pubsub() as subscriber:
            subscriber.subscribe("news")
            subscriber.psubscribe("weather.*")
            kinds = [self.message(subscriber)["type"] for _ in range(2)]
            assert kinds == ["subscribe", "psubscribe"], kinds
            assert self.client.publish("news", "one") == 1
            assert self.client.publish("weather.rome", "sunny") == 1
            news, weather = self.message(subscriber), self.message(subscriber)
            assert (news["type"], news["channel"], news["data"]) == ("message", b"news", b"one")
            assert (weather["type"], weather["pattern"], weather["data"]) == ("pmessage", b"weather.*", b"sunny")
            assert self.client.pubsub_numsub("news") == [(b"news", 1)] and self.client.pubsub_numpat() == 1
            subscriber.ping("still there")
            assert self.message(subscriber)["type"] == "pong"
            subscriber.unsubscribe("news")
            assert self.message(subscriber)["type"] == "unsubscribe"
            assert self.client.publish("news", "two") == 0

    @staticmethod
    def message(subscriber):
        message = subscriber.get_message(timeout=PATIENCE_S)
        assert message is not None, "no message came"
        return message

    def scripts(self):
        add = self.client.register_script("return redis.call('incrby', KEYS[1], ARGV[1]) + tonumber(ARGV[2])")
        assert add(keys=["scripted"], args=[5, 100]) == 105
        self.client.script_flush()
        assert add(keys=["scripted"], args=[5, 100]) == 110  # the library sends it again
        with self.client.pipeline() as pipeline:
            add(keys=["scripted"], args=[1, 0], client=pipeline)
            assert pipeline.execute() == [11]
        shapes = self.client.eval("return {1, 'two', {3, false}, 4.9, redis.status_reply('FINE')}", 0)
        assert shapes == [1, b"two", [3, None], 4, b"FINE"], shapes
        try:
            self.client.eval("return redis.error_reply('MINE it is broken')", 0)
        except redis.ResponseError as error:
            assert str(error) == "MINE it is broken", error
        else:
            raise AssertionError("a script's error did not arrive")

    def blocking_calls(self):
        begin = time.monotonic()
        assert self.client.blpop(["empty"], timeout=SHORT_WAIT_S) is None
        assert time.monotonic() - begin >= SHORT_WAIT_S
        assert self.client.blmove("empty", "other", SHORT_WAIT_S, "LEFT", "RIGHT") is None
        assert self.client.bzpopmin("empty", timeout=SHORT_WAIT_S) is None
        taken = self.in_another_thread(lambda client: client.blpop(["first", "second"], timeout=PATIENCE_S))
        self.when_somebody_waits()
        self.client.rpush("second", "element")
        assert tuple(taken()) == (b"second", b"element")
        moved = self.in_another_thread(lambda client: client.blmove("from", "to", PATIENCE_S, "LEFT", "RIGHT"))
        self.when_somebody_waits()
        self.client.rpush("from", "element")
        assert moved() == b"element" and self.client.lrange("to", 0, -1) == [b"element"]
        popped = self.in_another_thread(lambda client: client.bzpopmax(["ranking"], timeout=PATIENCE_S))
        self.when_somebody_waits()
        self.client.zadd("ranking", {"best": 3})
        assert tuple(popped()) == (b"ranking", b"best", 3.0)

    def in_another_thread(self, call):
        """Starts `call` on a connection of its own. What is returned waits for its result."""
        results = []
        thread = threading.Thread(target=lambda: results.append(call(self.connect())), daemon=True)
        thread.start()

        def result():
            thread.join(PATIENCE_S)
            assert results, "the call did not return"
            return results[0]

        return result

    def when_somebody_waits(self):
        deadline = time.monotonic() + PATIENCE_S
        while int(self.client.info("clients")["blocked_clients"]) != 1:
            assert time.monotonic() < deadline, "INFO does not show the client that waits"
            time.sleep(0.005)

    def locks(self):
        lock = self.client.lock("lock", timeout=PATIENCE_S)
        other = self.client.lock("lock", timeout=PATIENCE_S)
        assert lock.acquire(blocking=False) and not other.acquire(blocking=False)
        assert lock.owned() and not other.owned() and lock.locked()
        assert lock.extend(PATIENCE_S) and lock.reacquire()
        lock.release()
        try:
            lock.release()
        except redis.exceptions.LockError:
            pass
        else:
            raise AssertionError("a lock was released twice")
        with other:
            assert not lock.acquire(blocking_timeout=SHORT_WAIT_S)

    def iterators(self):
        with self.client.pipeline(transaction=False) as pipeline:
            for number in range(500):
                pipeline.set(f"scan:{number}", "x").hset("scan hash", f"field:{number}", number)
                pipeline.sadd("scan set", number).zadd("scan sorted set", {str(number): number})
            pipeline.execute()
        assert set(self.client.scan_iter("scan:*", count=7)) == {f"scan:{number}".encode() for number in range(500)}
        assert set(self.client.scan_iter("scan *", _type="hash")) == {b"scan hash"}
        assert len(dict(self.client.hscan_iter("scan hash"))) == 500
        assert {int(member) for member in self.client.sscan_iter("scan set")} == set(range(500))
        assert sum(score for _, score in self.client.zscan_iter("scan sorted set")) == sum(range(500))

    def monitor(self):
        with self.connect().monitor() as monitor:
            self.client.set("monitored", "with \"quotes\"\n")
            line = monitor.next_command()
            assert line["command"].startswith('SET monitored '), line
            assert line["db"] == 0 and line["client_type"] == "tcp", line

    def asynchronous(self):
        asyncio.run(self.with_asyncio())

    async def with_asyncio(self):
        async with redis.asyncio.Redis(host=self.host, port=self.port) as client:
            await asyncio.gather(*(client.incr("async") for _ in range(50)))
            assert await client.get("async") == b"50"
            async with client.pipeline() as pipeline:
                assert await pipeline.incr("async").incr("async").execute() == [51, 52]
            async with client.pubsub() as subscriber:
                await subscriber.subscribe("async news")
                async for message in subscriber.listen():
                    if message["type"] == "subscribe":  # not before, as it goes over another connection
                        await client.publish("async news", "one")
                    else:
                        assert message["data"] == b"one"
                        break
            async with client.lock("async lock", timeout=PATIENCE_S):
                assert await client.exists("async lock") == 1

    def huey_jobs(self):
        huey = RedisHuey("smoke", host=self.host, port=self.port)
        failures = []

        @huey.task()
        def add(a, b):
            return a + b

        @huey.task(retries=1, retry_delay=0)
        def fails_once():
            failures.append(1)
            if len(failures) == 1:
                raise ValueError("on purpose")
            return len(failures)

        consumer = huey.create_consumer(workers=2, worker_type="thread", initial_delay=0.01, max_delay=0.05)
        consumer.start()
        results = [add(number, 1) for number in range(20)] + [add.schedule((30, 1), delay=1)]
        assert [result.get(blocking=True, timeout=PATIENCE_S) for result in results] == [*range(1, 21), 31]
        fails_once()
        deadline = time.monotonic() + PATIENCE_S
        while len(failures) < 2:
            assert time.monotonic() < deadline, "a failed job was not tried again"
            time.sleep(0.01)
        consumer.stop(graceful=True)

    def dramatiq_jobs(self):
        broker = RedisBroker(host=self.host, port=self.port)
        dramatiq.set_broker(broker)
        done = set()

        @dramatiq.actor(max_retries=0)
        def note(number):
            done.add(number)

        worker = dramatiq.Worker(broker, worker_threads=2)
        worker.start()
        for number in range(20):
            note.send(number)
        note.send_with_options(args=(20,), delay=100)
        deadline = time.monotonic() + PATIENCE_S
        while len(done) < 21:
            assert time.monotonic() < deadline, f"jobs were lost; done are {sorted(done)}"
            time.sleep(0.01)
        broker.join(note.queue_name, timeout=PATIENCE_S * 1000)
        worker.stop()
        broker.close()


STEPS = [
    Program.values,
    Program.both_protocols,
    Program.expiry,
    Program.pipelines,
    Program.transactions,
    Program.messages,
    Program.scripts,
    Program.blocking_calls,
    Program.locks,
    Program.iterators,
    Program.monitor,
    Program.asynchronous,
    Program.huey_jobs,
    Program.dramatiq_jobs,
]


def main():
    faulthandler.dump_traceback_later(PROGRAM_LIMIT_S, exit=True)
    program = Program(sys.argv[1], int(sys.argv[2]))
    program.client.flushall()
    for step in STEPS:
        print(step.__name__.replace("_", " "), flush=True)
        step(program)


if __name__ == "__main__":
    main()
