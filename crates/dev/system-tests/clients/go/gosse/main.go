// Listens to a stream by go-sse, which comes back by itself.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"

	"github.com/tmaxmax/go-sse"
)

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Args[1], nil)
	if err != nil {
		log.Fatal(err)
	}
	out := json.NewEncoder(os.Stdout)
	connection := sse.NewConnection(request)
	connection.SubscribeToAll(func(event sse.Event) {
		var data any
		if err := json.Unmarshal([]byte(event.Data), &data); err != nil {
			log.Fatalf("event %q: %v", event.Type, err)
		}
		if err := out.Encode(map[string]any{"event": event.Type, "id": event.LastEventID, "data": data}); err != nil {
			log.Fatal(err)
		}
	})
	log.Fatal(connection.Connect())
}
