// What Node programs do with Redis: ioredis and node-redis with their default settings, and on top of them locks (redlock), a job
// queue (Bull) and web sessions (express-session).
//
// Usage: node smoke.mjs HOST PORT. Says what it is about to try, and ends with an error at the first thing that is not as with Redis.
// The database is emptied at the start.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import Bull from "bull";
import { RedisStore } from "connect-redis";
import session from "express-session";
import { Redis } from "ioredis";
import { WatchError, createClient } from "redis";
import Redlock from "redlock";

const [host, port] = [process.argv[2], Number(process.argv[3])];

// For what happens in milliseconds unless it never happens.
const PATIENCE_MS = 20_000;
// How long a call blocks when nothing comes. Long enough to be told from an answer at once.
const SHORT_WAIT_S = 0.2;

const connections = [];
const ioredis = (options = {}) => {
  const client = new Redis({ host, port, ...options });
  connections.push(() => client.disconnect());
  return client;
};
const nodeRedis = async (options = {}) => {
  const client = await createClient({ socket: { host, port }, ...options })
    .on("error", (error) => console.error(error))
    .connect();
  connections.push(() => client.destroy());
  return client;
};

const steps = {
  "ioredis: values": async () => {
    const client = ioredis();
    assert.equal(await client.set("greeting", "hello", "EX", 100, "NX"), "OK");
    assert.equal(await client.set("greeting", "again", "NX"), null);
    assert.deepEqual(await client.getBuffer("greeting"), Buffer.from("hello"));
    assert.equal(await client.hset("user", { name: "Ada", age: 36 }), 2);
    assert.deepEqual(await client.hgetall("user"), { name: "Ada", age: "36" });
    await client.zadd("scores", 1, "one", 2.5, "two");
    assert.deepEqual(await client.zrange("scores", 0, -1, "WITHSCORES"), ["one", "1", "two", "2.5"]);
    await assert.rejects(client.lpush("greeting", "x"), /^ReplyError: WRONGTYPE Operation against a key holding/);
    assert.match(await client.info("server"), /redis_version:7\./);
  },

  "ioredis: pipelines and transactions": async () => {
    const client = ioredis();
    const pipeline = client.pipeline();
    for (let number = 0; number < 1000; number++) pipeline.set(`pipelined:${number}`, number);
    const replies = await pipeline.get("pipelined:999").lpush("pipelined:0", "x").exec();
    assert.deepEqual(replies[1000], [null, "999"]);
    assert.match(replies[1001][0].message, /^WRONGTYPE/);
    assert.deepEqual(await client.multi().set("balance", 10).incr("balance").exec(), [[null, "OK"], [null, 11]]);
    await client.watch("balance");
    await ioredis().incr("balance");
    assert.equal(await client.multi().set("balance", 0).exec(), null);
    assert.equal(await client.get("balance"), "12");
    await assert.rejects(client.multi().set("balance").exec(), /^ReplyError: EXECABORT/);
    const automatic = ioredis({ enableAutoPipelining: true });
    const numbers = await Promise.all(Array.from({ length: 100 }, () => automatic.incr("automatic")));
    assert.equal(Math.max(...numbers), 100);
  },

  "ioredis: messages": async () => {
    const [subscriber, publisher] = [ioredis(), ioredis()];
    assert.equal(await subscriber.subscribe("news", "sport"), 2);
    assert.equal(await subscriber.psubscribe("weather.*"), 3);
    const [message, pattern] = [once(subscriber, "message"), once(subscriber, "pmessage")];
    assert.equal(await publisher.publish("news", "one"), 1);
    assert.equal(await publisher.publish("weather.rome", "sunny"), 1);
    assert.deepEqual(await message, ["news", "one"]);
    assert.deepEqual(await pattern, ["weather.*", "weather.rome", "sunny"]);
    await subscriber.unsubscribe("news");
    assert.equal(await publisher.publish("news", "two"), 0);
    await publisher.config("SET", "notify-keyspace-events", "KEx");
    const expired = once(subscriber, "message");
    await subscriber.subscribe("__keyevent@0__:expired");
    await publisher.set("brief", "x", "PX", 20);
    assert.deepEqual(await expired, ["__keyevent@0__:expired", "brief"]);
    await publisher.config("SET", "notify-keyspace-events", "");
  },

  "ioredis: scripts": async () => {
    const client = ioredis();
    const lua = "return redis.call('incrby', KEYS[1], ARGV[1]) + tonumber(ARGV[2])";
    client.defineCommand("addTwice", { numberOfKeys: 1, lua });
    assert.equal(await client.addTwice("scripted", 5, 100), 105);
    await client.script("FLUSH");
    assert.equal(await client.addTwice("scripted", 5, 100), 110);
    assert.deepEqual(await client.pipeline().addTwice("scripted", 1, 0).exec(), [[null, 11]]);
  },

  "ioredis: blocking calls": async () => {
    const [waiting, client] = [ioredis(), ioredis()];
    assert.equal(await waiting.blpop("empty", SHORT_WAIT_S), null);
    assert.equal(await waiting.blmove("empty", "other", "LEFT", "RIGHT", SHORT_WAIT_S), null);
    const taken = waiting.blpop("first", "second", 20);
    await whenSomebodyWaits(client);
    await client.rpush("second", "element");
    assert.deepEqual(await taken, ["second", "element"]);
    const moved = waiting.blmove("from", "to", "LEFT", "RIGHT", 20);
    await whenSomebodyWaits(client);
    await client.rpush("from", "element");
    assert.equal(await moved, "element");
  },

  "ioredis: iterators": async () => {
    const client = ioredis({ keyPrefix: "" });
    const pipeline = client.pipeline();
    for (let number = 0; number < 500; number++) pipeline.set(`scan:${number}`, "x").sadd("scan set", number);
    await pipeline.exec();
    const [keys, members] = [new Set(), new Set()];
    for await (const page of client.scanStream({ match: "scan:*", count: 7 })) page.forEach((key) => keys.add(key));
    for await (const page of client.sscanStream("scan set")) page.forEach((member) => members.add(member));
    assert.deepEqual([keys.size, members.size], [500, 500]);
  },

  "ioredis: monitor": async () => {
    // Until MONITOR is confirmed nobody may send anything: the library takes a line that arrives together with the OK for a reply.
    const client = ioredis();
    await client.ping();
    const monitor = await client.monitor();
    const seen = new Promise((resolve) => monitor.on("monitor", (_, args) => args.includes("monitored") && resolve(args)));
    await client.set("monitored", "x");
    assert.deepEqual((await seen).slice(1), ["monitored", "x"]);
    monitor.disconnect();
  },

  "ioredis: locks with redlock": async () => {
    const redlock = new Redlock([ioredis()], { retryCount: 0 });
    let lock = await redlock.acquire(["resource:a", "resource:b"], PATIENCE_MS);
    await assert.rejects(redlock.acquire(["resource:b"], PATIENCE_MS), { name: "ExecutionError" });
    lock = await lock.extend(PATIENCE_MS);
    await lock.release();
    const value = await redlock.using(["resource:b"], PATIENCE_MS, async (signal) => {
      assert.equal(signal.aborted, false);
      return "done";
    });
    assert.equal(value, "done");
  },

  "node-redis: values, both protocols": async () => {
    for (const RESP of [2, 3]) {
      const client = await nodeRedis({ RESP, name: `smoke-${RESP}` });
      await client.flushAll();
      assert.equal(await client.set("greeting", "hello", { expiration: { type: "EX", value: 100 }, condition: "NX" }), "OK");
      assert.equal(await client.get("no such key"), null);
      await client.hSet("user", { name: "Ada", age: "36" });
      assert.deepEqual({ ...(await client.hGetAll("user")) }, { name: "Ada", age: "36" });
      await client.zAdd("scores", [{ score: 1, value: "one" }, { score: 2.5, value: "two" }]);
      assert.deepEqual((await client.zRangeWithScores("scores", 0, -1)).map(({ score }) => score), [1, 2.5]);
      assert.equal(await client.clientGetName(), `smoke-${RESP}`);
      assert.deepEqual({ ...(await client.configGet("maxmemory")) }, { maxmemory: "0" });
    }
  },

  "node-redis: pipelines and transactions": async () => {
    const client = await nodeRedis();
    const numbers = await Promise.all(Array.from({ length: 200 }, () => client.incr("together")));
    assert.deepEqual(numbers, Array.from({ length: 200 }, (_, index) => index + 1));
    assert.deepEqual(await client.multi().set("balance", "10").incr("balance").exec(), ["OK", 11]);
    await client.watch("balance");
    await (await nodeRedis()).incr("balance");
    await assert.rejects(client.multi().set("balance", "0").exec(), WatchError);
  },

  "node-redis: messages": async () => {
    const publisher = await nodeRedis();
    const subscriber = await nodeRedis();
    const received = new Promise((resolve) => {
      const messages = [];
      const note = (message, channel) => messages.push([channel, message]) === 2 && resolve(messages);
      void subscriber.subscribe("news", note);
      void subscriber.pSubscribe("weather.*", note);
    });
    await subscriber.ping();
    assert.equal(await publisher.publish("news", "one"), 1);
    assert.equal(await publisher.publish("weather.rome", "sunny"), 1);
    assert.deepEqual(await received, [["news", "one"], ["weather.rome", "sunny"]]);
    const shard = new Promise((resolve) => void subscriber.sSubscribe("shard", resolve));
    await subscriber.ping();
    assert.equal(await publisher.sPublish("shard", "one"), 1);
    assert.equal(await shard, "one");
    await subscriber.unsubscribe("news");
    assert.equal(await publisher.publish("news", "two"), 0);
  },

  "node-redis: scripts, blocking calls, iterators": async () => {
    const client = await nodeRedis();
    assert.equal(await client.eval("return redis.call('incrby', KEYS[1], ARGV[1])", { keys: ["scripted"], arguments: ["5"] }), 5);
    assert.equal(await client.blPop("empty", SHORT_WAIT_S), null);
    const waiting = await nodeRedis();
    const taken = waiting.blPop(["first", "second"], 20);
    await whenSomebodyWaits(ioredis());
    await client.rPush("second", "element");
    assert.deepEqual({ ...(await taken) }, { key: "second", element: "element" });
    await Promise.all(Array.from({ length: 300 }, (_, number) => client.set(`scan:${number}`, "x")));
    const keys = new Set();
    for await (const page of client.scanIterator({ MATCH: "scan:*", COUNT: 10 })) page.forEach((key) => keys.add(key));
    assert.equal(keys.size, 300);
  },

  "Bull: jobs": async () => {
    const queue = new Bull("smoke", { redis: { host, port } });
    let attempts = 0;
    void queue.process(2, async (job) => {
      if (job.data.failsOnce && attempts++ === 0) throw new Error("on purpose");
      await job.progress(50);
      return job.data.number * 2;
    });
    const jobs = [];
    for (let number = 0; number < 20; number++) jobs.push(await queue.add({ number }));
    jobs.push(await queue.add({ number: 20 }, { delay: 100 }));
    jobs.push(await queue.add({ number: 21 }, { priority: 1 }));
    jobs.push(await queue.add({ number: 22, failsOnce: true }, { attempts: 2, backoff: 10 }));
    const results = await Promise.all(jobs.map((job) => finished(job)));
    assert.deepEqual(results, jobs.map((_, number) => number * 2));
    const counts = await queue.getJobCounts();
    assert.deepEqual([counts.completed, counts.failed, counts.waiting], [23, 0, 0]);
    await queue.clean(0, "completed");
    await queue.obliterate({ force: true });
    await queue.close();
  },

  "express-session: web sessions": async () => {
    const client = await nodeRedis();
    const sessions = session({
      store: new RedisStore({ client }),
      secret: "not a secret",
      resave: false,
      saveUninitialized: false,
    });
    const server = http.createServer((request, response) => {
      sessions(request, response, () => {
        if (request.url === "/logout") return request.session.destroy(() => response.end("bye"));
        request.session.visits = (request.session.visits ?? 0) + 1;
        response.end(String(request.session.visits));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const site = `http://127.0.0.1:${server.address().port}`;
    const first = await fetch(site);
    const headers = { cookie: first.headers.get("set-cookie").split(";")[0] };
    const visit = async (path) => (await fetch(site + path, { headers })).text();
    assert.deepEqual([await first.text(), await visit("/"), await visit("/")], ["1", "2", "3"]);
    assert.equal((await client.keys("sess:*")).length, 1);
    assert.deepEqual([await visit("/logout"), await client.keys("sess:*")], ["bye", []]);
    server.closeAllConnections();
    server.close();
  },
};

/** What a job of Bull returns; an error when nothing comes of it. */
async function finished(job) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const late = once(patience, "abort").then(() => assert.fail(`job ${job.id} did not end`));
  return Promise.race([job.finished(), late]);
}

async function whenSomebodyWaits(client) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!/^blocked_clients:1\r?$/m.test(await client.info("clients"))) {
    assert.ok(Date.now() < deadline, "INFO does not show the client that waits");
    await sleep(5);
  }
}

const emptied = ioredis();
await emptied.flushall();
for (const [name, step] of Object.entries(steps)) {
  console.log(name);
  await step();
  connections.splice(0).forEach((close) => close());
}
