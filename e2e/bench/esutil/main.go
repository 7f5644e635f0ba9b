// go-elasticsearch: its esutil.BulkIndexer, as its documentation has it, 1 MiB a bulk and 4 workers.
//
// What is measured is the client alone: the input is in memory, and documents are text, so that they are neither read
// nor written anew. One line of JSON says what came of it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/elastic/go-elasticsearch/v9"
	"github.com/elastic/go-elasticsearch/v9/esutil"
)

type meta struct {
	Index       string `json:"_index"`
	ID          string `json:"_id"`
	Routing     string `json:"routing"`
	Version     int64  `json:"version"`
	VersionType string `json:"version_type"`
}

type operation struct {
	verb     string
	meta     meta
	document []byte
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func usage() (float64, int64) {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(used.Utime) + seconds(used.Stime), used.Maxrss * 1024
}

func main() {
	node := flag.String("node", "", "address of a node")
	flag.Parse()
	input, err := os.ReadFile(flag.Arg(0))
	must(err)
	var operations []operation
	for len(input) > 0 {
		line, rest, _ := bytes.Cut(input, []byte("\n"))
		var action map[string]meta
		must(json.Unmarshal(line, &action))
		for verb, meta := range action {
			one := operation{verb: verb, meta: meta}
			if verb != "delete" {
				one.document, rest, _ = bytes.Cut(rest, []byte("\n"))
			}
			operations = append(operations, one)
		}
		input = rest
	}

	client, err := elasticsearch.NewClient(elasticsearch.Config{Addresses: []string{*node}})
	must(err)
	_, err = client.Info()
	must(err)
	cpu, memory := usage()
	begin := time.Now()
	var settled atomic.Int64
	indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
		Client: client, NumWorkers: 4, FlushBytes: 1 << 20, FlushInterval: time.Second,
	})
	must(err)
	succeeded := func(context.Context, esutil.BulkIndexerItem, esutil.BulkIndexerResponseItem) { settled.Add(1) }
	failed := func(_ context.Context, _ esutil.BulkIndexerItem, answer esutil.BulkIndexerResponseItem, _ error) {
		if answer.Status == 409 || answer.Status == 404 {
			settled.Add(1)
		}
	}
	for at := range operations {
		one := &operations[at]
		item := esutil.BulkIndexerItem{
			Action: one.verb, Index: one.meta.Index, DocumentID: one.meta.ID, Routing: one.meta.Routing,
			Version: &one.meta.Version, VersionType: one.meta.VersionType, OnSuccess: succeeded, OnFailure: failed,
		}
		if one.document != nil {
			item.Body = bytes.NewReader(one.document)
		}
		must(indexer.Add(context.Background(), item))
	}
	must(indexer.Close(context.Background()))
	seconds := time.Since(begin).Seconds()
	after, peak := usage()
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"documents": len(operations), "settled": settled.Load(), "seconds": seconds, "cpu": after - cpu,
		"memory": peak - memory,
	}))
}
