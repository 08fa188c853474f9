// A closed loop of etcd clients: `put|get CLIENTS SECONDS`, `first` and `leader`, each followed by the endpoints.
//
// Built by bench/stores.py with Debian's golang-go and golang-etcd-server-dev.  Says one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/clientv3"
)

const (
	connections = 16                    // at most; more clients share them
	keys        = 1000                  // of each client
	patience    = 50 * time.Millisecond // for one try after the leader was killed
)

var value = strings.Repeat("x", 256)

func connect(endpoints []string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 2 * time.Second})
	if err != nil {
		panic(err)
	}
	return client
}

func say(found interface{}) {
	data, _ := json.Marshal(found)
	fmt.Println(string(data))
}

// Each client asks again as soon as it is answered, until the time is over.
func load(verb string, clients int, duration time.Duration, endpoints []string) {
	var shared []*clientv3.Client
	for i := 0; i < clients && i < connections; i++ {
		shared = append(shared, connect(endpoints))
		shared[i].Put(context.Background(), "warm", value)
	}
	var mutex sync.Mutex
	var group sync.WaitGroup
	var all []float64
	errors := 0
	began := time.Now()
	for i := 0; i < clients; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			var own []float64
			failed := 0
			for k := 0; time.Since(began) < duration; k++ {
				asked := time.Now()
				var err error
				if verb == "get" {
					_, err = shared[i%len(shared)].Get(context.Background(), "warm")
				} else {
					_, err = shared[i%len(shared)].Put(context.Background(), fmt.Sprintf("k/%d/%d", i, k%keys), value)
				}
				if err != nil {
					failed++
				} else {
					own = append(own, time.Since(asked).Seconds())
				}
			}
			mutex.Lock()
			all, errors = append(all, own...), errors+failed
			mutex.Unlock()
		}(i)
	}
	group.Wait()
	elapsed := time.Since(began).Seconds()
	sort.Float64s(all)
	at := func(part float64) float64 { return all[int(float64(len(all)-1)*part)] }
	say(map[string]interface{}{"rate": float64(len(all)) / elapsed, "p50": at(0.5), "p99": at(0.99), "errors": errors})
}

// Says "warm", waits for a line, and tries to put until it is acknowledged.
func first(endpoints []string) {
	client := connect(endpoints)
	client.Put(context.Background(), "warm", value)
	fmt.Println("warm")
	fmt.Scanln()
	for {
		limited, cancel := context.WithTimeout(context.Background(), patience)
		_, err := client.Put(limited, "first", value)
		cancel()
		if err == nil {
			fmt.Println("acknowledged")
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Says which of the endpoints leads.
func leader(endpoints []string) {
	client := connect(endpoints)
	for at, endpoint := range endpoints {
		limited, cancel := context.WithTimeout(context.Background(), time.Second)
		status, err := client.Status(limited, endpoint)
		cancel()
		if err == nil && status.Leader == status.Header.MemberId {
			say(at)
			return
		}
	}
	say(-1)
}

func main() {
	endpoints := strings.Split(os.Args[len(os.Args)-1], ",")
	switch verb := os.Args[1]; verb {
	case "first":
		first(endpoints)
	case "leader":
		leader(endpoints)
	default:
		clients, _ := strconv.Atoi(os.Args[2])
		duration, _ := strconv.ParseFloat(os.Args[3], 64)
		load(verb, clients, time.Duration(duration*float64(time.Second)), endpoints)
	}
}
