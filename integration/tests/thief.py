"""Tries one thing after the other at a NATS server with a host's own credentials, as whoever stole them would, with nothing of
windlass in between. Reads {url, user, password, tries: [{op, subject, payload, headers}]} from standard input; prints for each
try what the server said of it: {refused, answer}."""

import asyncio
import json
import sys

import nats


async def main():
    told = json.load(sys.stdin)
    said = []

    async def error(e):
        said.append(str(e))

    nc = await nats.connect(
        told["url"],
        user=told["user"],
        password=told["password"],
        inbox_prefix=told["inbox"].encode(),
        error_cb=error,
        allow_reconnect=False,
    )
    results = []
    for attempt in told["tries"]:
        results.append(await one(nc, attempt, said))
    print(json.dumps(results))
    await nc.close()


async def one(nc, attempt, said):
    said.clear()
    subject, payload = attempt["subject"], attempt.get("payload", "").encode()
    answer = None
    if attempt["op"] == "sub":
        await nc.subscribe(subject, queue=attempt.get("queue", ""))
    else:
        inbox = nc.new_inbox()
        answers = await nc.subscribe(inbox)
        await nc.publish(subject, payload, reply=inbox, headers=attempt.get("headers"))
    # the server says no before it answers the ping of the flush
    await nc.flush()
    await asyncio.sleep(0.05)
    if attempt["op"] != "sub" and not said:
        try:
            answer = (await answers.next_msg(timeout=2)).data.decode()
        except Exception as e:
            answer = f"{type(e).__name__}"
    refused = [text for text in said if "permissions" in text.lower() and subject.lower() in text.lower()]
    return {"refused": bool(refused), "said": list(said), "answer": answer}


asyncio.run(main())
