# Looks at windlass's services with nats-py, a NATS client that isn't ours: ping, info, stats, and a call of each kind.
# Usage: services.py URL HOST; prints one JSON document.
import asyncio
import json
import sys

import nats
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats


async def gather(nc, subject):
    """Everything that is answered within half a second."""
    inbox = nc.new_inbox()
    heard = []
    sub = await nc.subscribe(inbox)
    await nc.publish(subject, b"", reply=inbox)
    while True:
        try:
            heard.append(json.loads((await sub.next_msg(timeout=0.5)).data))
        except nats.errors.TimeoutError:
            await sub.unsubscribe()
            return heard


async def main(url, host):
    nc = await nats.connect(url)
    pings = [ServicePing.from_dict(d) for d in await gather(nc, "$SRV.PING")]
    infos = [ServiceInfo.from_dict(d) for d in await gather(nc, "$SRV.INFO.windlass-house")]
    house = next(i for i in infos if i.metadata["host"] == host)
    endpoint = next(e for e in house.endpoints if e.name == "status")
    answer = await nc.request(endpoint.subject, b"{}", timeout=5)
    refused = await nc.request(endpoint.subject, b"{", timeout=5)
    stats = [ServiceStats.from_dict(d) for d in await gather(nc, f"$SRV.STATS.windlass-house.{house.id}")]
    counted = next(e for e in stats[0].endpoints if e.name == "status")
    print(
        json.dumps(
            {
                "names": sorted({p.name for p in pings}),
                "ids": len({p.id for p in pings}),
                "hosts": sorted({i.metadata["host"] for i in infos}),
                "subject": endpoint.subject,
                "queue_group": endpoint.queue_group,
                "schema": json.loads(endpoint.metadata["schema.reply"]),
                "answer": json.loads(answer.data),
                "refused": json.loads(refused.data),
                "refused_headers": refused.headers,
                "stats": len(stats),
                "requests": counted.num_requests,
                "errors": counted.num_errors,
                "last_error": counted.last_error,
            }
        )
    )
    await nc.close()


asyncio.run(main(*sys.argv[1:]))
