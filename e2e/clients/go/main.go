// What an application does with go-elasticsearch, over a collection behind a router; see ../README.md.
//
// journey URL COLLECTION N PREFIX: prints a line of JSON, and exits with 1 and a text when something is not as it
// should be. Effects: writes documents whose ids begin with PREFIX.
//
// The import paths are those of the newest line; ../run writes those of another one.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/elastic/go-elasticsearch/v9"
	"github.com/elastic/go-elasticsearch/v9/esutil"
	"github.com/elastic/go-elasticsearch/v9/typedapi/core/search"
	"github.com/elastic/go-elasticsearch/v9/typedapi/types"
	"github.com/elastic/go-elasticsearch/v9/typedapi/types/enums/refresh"
	"github.com/elastic/go-elasticsearch/v9/typedapi/types/enums/sortorder"
	"github.com/elastic/go-elasticsearch/v9/typedapi/types/enums/versiontype"
)

const (
	large                 = "81384788765712384" // has an index of its own
	poison, late, deleted = 5, 10, 10
)

type document struct {
	Guild   string `json:"guild_id"`
	Content string `json:"content"`
	Sent    int    `json:"sent"`
	Unknown *bool  `json:"unknown,omitempty"`
}

type journey struct {
	client             *elasticsearch.TypedClient
	collection, prefix string
	count              int
	firsts             map[string]int // of each tenant, the number of its first document
	errors             map[string]int // errors of items
}

func fail(what string, more ...any) {
	fmt.Fprintln(os.Stderr, append([]any{"go-elasticsearch: " + what + ":"}, more...)...)
	os.Exit(1)
}

func same(what string, got, expected any) {
	if !reflect.DeepEqual(got, expected) {
		fail(what, fmt.Sprintf("%#v, and not %#v", got, expected))
	}
}

func must[T any](what string) func(T, error) T {
	return func(value T, err error) T {
		if err != nil {
			fail(what, err)
		}
		return value
	}
}

func refused(what string, err error, status int, kind string) {
	var told *types.ElasticsearchError
	if !errors.As(err, &told) {
		fail(what, "no error of Elasticsearch:", err)
	}
	same(what, [2]any{told.Status, told.ErrorCause.Type}, [2]any{status, kind})
}

func tenantOf(n int) string {
	if n%5 == 0 {
		return large
	}
	return strconv.Itoa(1000 + n%199)
}

func (j *journey) idOf(n int) string { return fmt.Sprintf("%s-%d", j.prefix, n) }

func (j *journey) document(n int, edited bool) document {
	content := fmt.Sprintf("%s number %d said \"grüß dich\" 🦀\nand left", j.prefix, n)
	if edited {
		content = fmt.Sprintf("%s number %d, edited", j.prefix, n)
	}
	return document{Guild: tenantOf(n), Content: content, Sent: n}
}

// item: every second one says whose it is; of the others the document does.
func (j *journey) item(n int, version int64, source document) esutil.BulkIndexerItem {
	item := esutil.BulkIndexerItem{
		Action: "index", Index: j.collection, DocumentID: j.idOf(n), Version: &version, VersionType: "external",
		Body: bytes.NewReader(must[[]byte]("a document")(json.Marshal(source))),
	}
	if n%2 == 0 {
		item.Routing = tenantOf(n)
	}
	return item
}

func (j *journey) loaded(yield func(esutil.BulkIndexerItem)) {
	every := j.count / poison
	for n := range j.count {
		yield(j.item(n, 2, j.document(n, false)))
		if k := n / every; n%every == 0 && k < poison {
			source, yes := j.document(k, false), true
			source.Unknown = &yes
			item := j.item(k, 2, source)
			item.DocumentID = fmt.Sprintf("%s-unknown-%d", j.prefix, k)
			yield(item)
		}
	}
}

func (j *journey) changes(yield func(esutil.BulkIndexerItem)) {
	for _, n := range j.firsts {
		yield(j.item(n, 3, j.document(n, true)))
	}
	for n := j.count - late; n < j.count; n++ {
		yield(j.item(n, 1, j.document(n, true)))
	}
	for n := j.count - late - deleted; n < j.count-late; n++ {
		version := int64(3)
		yield(esutil.BulkIndexerItem{Action: "delete", Index: j.collection, DocumentID: j.idOf(n), Routing: tenantOf(n),
			Version: &version, VersionType: "external"})
	}
}

// bulk is statistics of the helper, and ids of what was refused.
func (j *journey) bulk(config esutil.BulkIndexerConfig, items func(func(esutil.BulkIndexerItem))) (esutil.BulkIndexerStats, []string) {
	var (
		lock sync.Mutex
		ids  []string
	)
	config.Client, config.NumWorkers, config.FlushBytes = j.client, 4, 200_000
	config.OnError = func(_ context.Context, err error) { fail("a bulk", err) }
	indexer := must[esutil.BulkIndexer]("the bulk indexer")(esutil.NewBulkIndexer(config))
	items(func(item esutil.BulkIndexerItem) {
		item.OnFailure = func(_ context.Context, item esutil.BulkIndexerItem, told esutil.BulkIndexerResponseItem, err error) {
			if err != nil {
				fail("an item", err)
			}
			lock.Lock()
			defer lock.Unlock()
			j.errors[fmt.Sprintf("%d %s", told.Status, told.Error.Type)]++
			ids = append(ids, item.DocumentID)
		}
		if err := indexer.Add(context.Background(), item); err != nil {
			fail("an item", err)
		}
	})
	if err := indexer.Close(context.Background()); err != nil {
		fail("the end of the bulk indexer", err)
	}
	slices.Sort(ids)
	return indexer.Stats(), ids
}

func (j *journey) load() {
	stats, ids := j.bulk(esutil.BulkIndexerConfig{}, j.loaded)
	var expected []string
	for k := range poison {
		expected = append(expected, fmt.Sprintf("%s-unknown-%d", j.prefix, k))
	}
	same("documents that were loaded", [2]uint64{stats.NumFlushed, stats.NumFailed}, [2]uint64{uint64(j.count), poison})
	same("what the mapping refuses", ids, expected)
}

func (j *journey) change() {
	stats, ids := j.bulk(esutil.BulkIndexerConfig{Refresh: "wait_for", FilterPath: []string{"took", "errors", "items"}}, j.changes)
	var expected []string
	for n := j.count - late; n < j.count; n++ {
		expected = append(expected, j.idOf(n))
	}
	slices.Sort(expected)
	same("changes", [3]uint64{stats.NumIndexed, stats.NumDeleted, stats.NumFailed}, [3]uint64{uint64(len(j.firsts)), deleted, late})
	same("documents that come late", ids, expected)
}

func (j *journey) own() *types.Query {
	return &types.Query{Match: map[string]types.MatchQuery{"content": {Query: j.prefix}}}
}

func (j *journey) counts(ctx context.Context) {
	expected := map[string]int64{}
	for n := range j.count {
		if n < j.count-late-deleted || n >= j.count-late {
			expected[tenantOf(n)]++
		}
	}
	for tenant := range j.firsts {
		got, err := j.client.Count().Index(j.collection).Routing(tenant).Query(j.own()).Do(ctx)
		if err != nil {
			fail("a count", err)
		}
		same("documents of tenant "+tenant, got.Count, expected[tenant])
	}
}

func (j *journey) contents(ctx context.Context) {
	some := map[int]bool{} // number → edited
	for n := 0; n < j.count-late-deleted; n += j.count / 100 {
		some[n] = false
	}
	for _, n := range j.firsts {
		some[n] = true
	}
	for n, edited := range some {
		got, err := j.client.Get(j.collection, j.idOf(n)).Routing(tenantOf(n)).Do(ctx)
		if err != nil {
			fail("a document", err)
		}
		version := int64(2)
		if edited {
			version = 3
		}
		same("a document", [3]any{got.Index_, got.Id_, *got.Version_}, [3]any{j.collection, j.idOf(n), version})
		same("its content", read(got.Source_), j.document(n, edited))
	}
	exists := func(n int, tenant string) bool {
		return must[bool]("exists")(j.client.Exists(j.collection, j.idOf(n)).Routing(tenant).Do(ctx))
	}
	last := j.count - late - 1
	same("exists", exists(0, large), true)
	same("exists, of what was deleted", exists(last, tenantOf(last)), false)
	same("exists, of another's", exists(0, tenantOf(1)), false)
	got, err := j.client.Get(j.collection, j.idOf(last)).Routing(tenantOf(last)).Do(ctx)
	if err != nil {
		fail("get, of what was deleted", err)
	}
	same("get, of what was deleted", got.Found, false)
}

func read(source json.RawMessage) (doc document) {
	if err := json.Unmarshal(source, &doc); err != nil {
		fail("a document", err)
	}
	return doc
}

func (j *journey) searches(ctx context.Context) {
	below, field := types.Float64(50), "sent"
	query := &types.Query{Bool: &types.BoolQuery{
		Must:   []types.Query{*j.own()},
		Filter: []types.Query{{Range: map[string]types.RangeQuery{"sent": types.NumberRangeQuery{Lt: &below}}}},
	}}
	size, one := 100, 1
	request := &search.Request{
		Query: query, Size: &size, TrackTotalHits: true,
		Sort:         []types.SortCombinations{types.SortOptions{SortOptions: map[string]types.FieldSort{"sent": {Order: &sortorder.Desc}}}},
		Aggregations: map[string]types.Aggregations{"last": {Max: &types.MaxAggregation{Field: &field}}},
	}
	ask := func(collection string) *search.Search {
		return j.client.Search().Index(collection).Routing(large).Request(request)
	}
	found := must[*search.Response]("a search")(ask(j.collection).TypedKeys(true).Pretty(true).Do(ctx))
	same("hits", len(found.Hits.Hits), 10)
	for at, hit := range found.Hits.Hits {
		n := 45 - 5*at
		same("a hit", *hit.Id_, j.idOf(n))
		same("its content", read(hit.Source_), j.document(n, n == 0))
	}
	same("total", found.Hits.Total.Value, int64(10))
	last, ok := found.Aggregations["last"].(*types.MaxAggregate)
	if !ok || last.Value == nil {
		fail("aggregation", found.Aggregations)
	}
	same("aggregation", math.Round(float64(*last.Value)), 45.0)
	only := must[*search.Response]("a search")(ask(j.collection).FilterPath("hits.total").Do(ctx))
	same("filter_path", [2]int64{only.Hits.Total.Value, int64(len(only.Hits.Hits))}, [2]int64{10, 0})

	several := j.client.Msearch()
	for _, header := range [][2]string{{j.collection, large}, {j.collection, tenantOf(1)}, {"nothing", large}} {
		if err := several.AddSearch(about(header[0], header[1]), body{Query: query, Size: &one}); err != nil {
			fail("msearch", err)
		}
	}
	answers, err := several.Do(ctx)
	if err != nil {
		fail("msearch", err)
	}
	for at, expected := range []int64{10, 1} {
		answer, ok := answers.Responses[at].(*types.MultiSearchItem)
		if !ok {
			fail("msearch", fmt.Sprintf("%T", answers.Responses[at]))
		}
		same("msearch", answer.Hits.Total.Value, expected)
	}
	none, ok := answers.Responses[2].(*types.ErrorResponseBase)
	if !ok {
		fail("msearch, of nothing", fmt.Sprintf("%T", answers.Responses[2]))
	}
	same("msearch, of nothing", [2]any{none.Status, none.Error.Type}, [2]any{404, "index_not_found_exception"})

	_, err = ask("nothing").Do(ctx)
	refused("search, of nothing", err, 404, "index_not_found_exception")
	_, err = j.client.Search().Index(j.collection).Routing(large).Raw(strings.NewReader(`{"query": {"script": {"script": "true"}}}`)).Do(ctx)
	refused("search, with a script", err, 400, "illegal_argument_exception")
}

func (j *journey) single(ctx context.Context) {
	id := j.prefix + "-single"
	write := func(version string) (any, error) {
		done, err := j.client.Index(j.collection).Id(id).Routing(large).Version(version).VersionType(versiontype.External).
			Refresh(refresh.Waitfor).Document(j.document(5, false)).Do(ctx)
		if err != nil {
			return nil, err
		}
		return done.Result.String(), nil
	}
	same("index", must[any]("index")(write("5")), any("created"))
	got, err := j.client.Get(j.collection, id).Routing(large).SourceIncludes_("sent").Pretty(true).Do(ctx)
	if err != nil {
		fail("get", err)
	}
	same("its content", read(got.Source_), document{Sent: 5})
	_, err = write("4")
	refused("index, late", err, 409, "version_conflict_engine_exception")
	done, err := j.client.Delete(j.collection, id).Routing(large).Version("6").VersionType(versiontype.External).Do(ctx)
	if err != nil {
		fail("delete", err)
	}
	same("delete", done.Result.String(), "deleted")
	same("exists, of the deleted one", must[bool]("exists")(j.client.Exists(j.collection, id).Routing(large).Do(ctx)), false)
}

func main() {
	count := must[int]("the number of documents")(strconv.Atoi(os.Args[3]))
	client := must[*elasticsearch.TypedClient]("the client")(elasticsearch.NewTypedClient(elasticsearch.Config{
		Addresses: []string{os.Args[1]}, CompressRequestBody: true, MaxRetries: 3, RetryOnStatus: []int{429, 502, 503, 504},
	}))
	j := &journey{client: client, collection: os.Args[2], count: count, prefix: os.Args[4], firsts: map[string]int{}, errors: map[string]int{}}
	for n := 994; n >= 0; n-- {
		j.firsts[tenantOf(n)] = n
	}
	ctx, began := context.Background(), time.Now()
	info, err := client.Info().Do(ctx)
	if err != nil {
		fail("the server", err)
	}
	same("the line of the server", strings.ContainsAny(info.Version.Int[:1], "89"), true)
	j.load()
	seconds := math.Round(time.Since(began).Seconds()*10) / 10
	j.change()
	j.counts(ctx)
	j.contents(ctx)
	j.searches(ctx)
	j.single(ctx)
	line := map[string]any{
		"client": "go-elasticsearch", "version": elasticsearch.Version, "documents": count, "stored": count - deleted,
		"seconds": seconds, "errors": j.errors,
		"operations": map[string]int{"done": count + len(j.firsts) + deleted + 2, "superseded": late + 1, "refused": poison},
	}
	fmt.Println(string(must[[]byte]("the result")(json.Marshal(line))))
}
