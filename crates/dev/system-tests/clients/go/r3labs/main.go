// Listens to a stream by r3labs/sse. It comes back after an error, not after the proper end of a
// stream; called again, it goes on with the cursor that it has.
package main

import (
	"encoding/json"
	"log"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	// An event takes up to 64 KiB, its cursor up to 2 KiB; the scanner's own limit is 64 KiB.
	client := sse.NewClient(os.Args[1], sse.ClientMaxBufferSize(128*1024))
	for {
		err := client.SubscribeRaw(func(event *sse.Event) {
			var data any
			if err := json.Unmarshal(event.Data, &data); err != nil {
				log.Fatalf("event %q: %v", event.Event, err)
			}
			if err := out.Encode(map[string]any{"event": string(event.Event), "id": string(event.ID), "data": data}); err != nil {
				log.Fatal(err)
			}
		})
		if err != nil {
			log.Print(err)
		}
		time.Sleep(time.Second)
	}
}
