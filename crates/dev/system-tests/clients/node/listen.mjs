// Listens to a stream by eventsource, which comes back by itself as a browser's does.
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
for (const type of ["message", "ready", "gap", "ping"]) {
  source.addEventListener(type, ({ lastEventId, data }) => {
    console.log(JSON.stringify({ event: type, id: lastEventId, data: JSON.parse(data) }));
  });
}
