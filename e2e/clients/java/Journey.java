// What an application does with elasticsearch-java, over a collection behind a router; see ../README.md.
//
// Journey URL COLLECTION N PREFIX: prints a line of JSON, and exits with 1 and a text when something is not as it
// should be. Effects: writes documents whose ids begin with PREFIX.

import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.elasticsearch._helpers.bulk.BulkIngester;
import co.elastic.clients.elasticsearch._helpers.bulk.BulkListener;
import co.elastic.clients.elasticsearch._types.ElasticsearchException;
import co.elastic.clients.elasticsearch._types.Refresh;
import co.elastic.clients.elasticsearch._types.SortOrder;
import co.elastic.clients.elasticsearch._types.VersionType;
import co.elastic.clients.elasticsearch._types.query_dsl.Query;
import co.elastic.clients.elasticsearch.core.BulkRequest;
import co.elastic.clients.elasticsearch.core.BulkResponse;
import co.elastic.clients.elasticsearch.core.bulk.BulkOperation;
import co.elastic.clients.transport.BackoffPolicy;
import co.elastic.clients.transport.Version;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

public final class Journey {
  private static final String LARGE = "81384788765712384"; // has an index of its own
  private static final int POISON = 5;
  private static final int LATE = 10;
  private static final int DELETED = 10;

  public record Document(String guild_id, String content, Long sent) {}

  public record Poison(String guild_id, String content, Long sent, boolean unknown) {}

  private final ElasticsearchClient client;
  private final String collection;
  private final String prefix;
  private final int count;
  private final Map<String, Integer> firsts = new TreeMap<>(); // of each tenant, the number of its first document
  private final Map<String, AtomicInteger> errors = new ConcurrentHashMap<>(); // of items

  private Journey(ElasticsearchClient client, String collection, int count, String prefix) {
    this.client = client;
    this.collection = collection;
    this.count = count;
    this.prefix = prefix;
    IntStream.range(0, 995).forEach(n -> firsts.putIfAbsent(tenantOf(n), n));
  }

  private static final class Differs extends RuntimeException {
    private static final long serialVersionUID = 1;

    Differs(String text) {
      super(text);
    }
  }

  private static void same(String what, Object got, Object expected) {
    if (!Objects.equals(got, expected)) {
      throw new Differs(what + ": " + got + ", and not " + expected);
    }
  }

  private interface Call {
    Object run() throws IOException;
  }

  private static void refused(String what, int status, String type, Call call) throws IOException {
    try {
      call.run();
    } catch (ElasticsearchException error) {
      same(what, error.status() + " " + error.error().type(), status + " " + type);
      return;
    } catch (IOException error) {
      same(what, Connect.refusal(error), status + " " + type);
      return;
    }
    throw new Differs(what + ": no ElasticsearchException");
  }

  private static String tenantOf(int n) {
    return n % 5 == 0 ? LARGE : Integer.toString(1000 + n % 199);
  }

  private String idOf(int n) {
    return prefix + "-" + n;
  }

  private Document document(int n, boolean edited) {
    var content = edited ? ", edited" : " said \"grüß dich\" 🦀\nand left";
    return new Document(tenantOf(n), prefix + " number " + n + content, (long) n);
  }

  /** Every second one says whose it is; of the others the document does. */
  private BulkOperation write(int n, long version, String id, Object source) {
    return BulkOperation.of(o -> o.index(i -> i.index(collection).id(id).version(version).versionType(VersionType.External)
        .routing(n % 2 == 0 ? tenantOf(n) : null).document(source)));
  }

  private void loaded(Consumer<BulkOperation> add) {
    int every = count / POISON;
    for (int n = 0; n < count; n++) {
      add.accept(write(n, 2, idOf(n), document(n, false)));
      int k = n / every;
      if (n % every == 0 && k < POISON) {
        var right = document(k, false);
        add.accept(write(k, 2, prefix + "-unknown-" + k, new Poison(right.guild_id, right.content, right.sent, true)));
      }
    }
  }

  private void changes(Consumer<BulkOperation> add) {
    firsts.values().forEach(n -> add.accept(write(n, 3, idOf(n), document(n, true))));
    late().forEach(n -> add.accept(write(n, 1, idOf(n), document(n, true))));
    IntStream.range(count - LATE - DELETED, count - LATE).forEach(n -> add.accept(BulkOperation.of(o -> o.delete(d ->
        d.index(collection).id(idOf(n)).routing(tenantOf(n)).version(3L).versionType(VersionType.External)))));
  }

  private IntStream late() {
    return IntStream.range(count - LATE, count);
  }

  /** How many were done; ids of the others go to `ids`. */
  private int bulk(Refresh refresh, Consumer<Consumer<BulkOperation>> operations, Set<String> ids) {
    var done = new AtomicInteger();
    var failure = new AtomicReference<Throwable>();
    var listener = new BulkListener<Void>() {
      @Override
      public void beforeBulk(long execution, BulkRequest request, List<Void> contexts) {}

      @Override
      public void afterBulk(long execution, BulkRequest request, List<Void> contexts, BulkResponse response) {
        for (var item : response.items()) {
          if (item.error() == null) {
            done.incrementAndGet();
          } else {
            errors.computeIfAbsent(item.status() + " " + item.error().type(), what -> new AtomicInteger()).incrementAndGet();
            ids.add(item.id());
          }
        }
      }

      @Override
      public void afterBulk(long execution, BulkRequest request, List<Void> contexts, Throwable error) {
        failure.set(error);
      }
    };
    try (var ingester = BulkIngester.<Void>of(b -> b.client(client).maxOperations(1000).maxConcurrentRequests(4)
        .backoffPolicy(BackoffPolicy.exponentialBackoff(50L, 5)).globalSettings(s -> s.refresh(refresh)).listener(listener))) {
      operations.accept(ingester::add);
    }
    same("an error of a bulk", failure.get(), null);
    return done.get();
  }

  private void load() {
    Set<String> ids = new ConcurrentSkipListSet<>();
    same("documents that were loaded", bulk(null, this::loaded, ids), count);
    var expected = IntStream.range(0, POISON).mapToObj(k -> prefix + "-unknown-" + k).collect(Collectors.toSet());
    same("what the mapping refuses", Set.copyOf(ids), expected);
  }

  private void change() {
    Set<String> ids = new ConcurrentSkipListSet<>();
    same("changes", bulk(Refresh.WaitFor, this::changes, ids), firsts.size() + DELETED);
    same("documents that come late", Set.copyOf(ids), late().mapToObj(this::idOf).collect(Collectors.toSet()));
  }

  private Query own() {
    return Query.of(q -> q.match(m -> m.field("content").query(prefix)));
  }

  private void counts() throws IOException {
    var expected = new HashMap<String, Long>();
    IntStream.concat(IntStream.range(0, count - LATE - DELETED), late()).forEach(n -> expected.merge(tenantOf(n), 1L, Long::sum));
    for (var tenant : firsts.keySet()) {
      var got = client.count(c -> c.index(collection).routing(tenant).query(own())).count();
      same("documents of tenant " + tenant, got, expected.get(tenant));
    }
  }

  private void contents() throws IOException {
    var edited = Set.copyOf(firsts.values());
    var some = new TreeSet<>(edited);
    for (int n = 0; n < count - LATE - DELETED; n += count / 100) {
      some.add(n);
    }
    for (int n : some) {
      var got = client.get(g -> g.index(collection).id(idOf(n)).routing(tenantOf(n)), Document.class);
      same("a document", List.of(got.index(), got.id(), got.version()), List.of(collection, idOf(n), edited.contains(n) ? 3L : 2L));
      same("its content", got.source(), document(n, edited.contains(n)));
    }
    int last = count - LATE - 1;
    same("exists", exists(idOf(0), LARGE), true);
    same("exists, of what was deleted", exists(idOf(last), tenantOf(last)), false);
    same("exists, of another's", exists(idOf(0), tenantOf(1)), false);
    same("get, of what was deleted", client.get(g -> g.index(collection).id(idOf(last)).routing(tenantOf(last)), Document.class).found(), false);
  }

  private boolean exists(String id, String tenant) throws IOException {
    return client.exists(e -> e.index(collection).id(id).routing(tenant)).value();
  }

  private void searches() throws IOException {
    var query = Query.of(q -> q.bool(b -> b.must(own()).filter(f -> f.range(r -> r.number(n -> n.field("sent").lt(50.0))))));
    var found = client.withTransportOptions(o -> o.setParameter("pretty", "true")).search(s -> s.index(collection).routing(LARGE)
        .query(query).sort(o -> o.field(f -> f.field("sent").order(SortOrder.Desc))).size(100).trackTotalHits(t -> t.enabled(true))
        .aggregations("last", a -> a.max(m -> m.field("sent"))), Document.class);
    var numbers = new ArrayList<Integer>();
    for (int n = 45; n >= 0; n -= 5) {
      numbers.add(n);
    }
    same("hits", found.hits().hits().stream().map(hit -> hit.id()).toList(), numbers.stream().map(this::idOf).toList());
    same("their content", found.hits().hits().stream().map(hit -> hit.source()).toList(),
        numbers.stream().map(n -> document(n, n == 0)).toList());
    same("total", found.hits().total().value(), 10L);
    same("aggregation", found.aggregations().get("last").max().value(), 45.0);
    var several = client.msearch(m -> {
      for (var header : List.of(List.of(collection, LARGE), List.of(collection, tenantOf(1)), List.of("nothing", LARGE))) {
        m.searches(s -> s.header(h -> h.index(header.get(0)).routing(header.get(1))).body(b -> b.query(query).size(1)));
      }
      return m;
    }, Document.class).responses();
    same("msearch", several.subList(0, 2).stream().map(one -> one.result().hits().total().value()).toList(), List.of(10L, 1L));
    var none = several.get(2).failure();
    same("msearch, of nothing", none.status() + " " + none.error().type(), "404 index_not_found_exception");
    refused("search, of nothing", 404, "index_not_found_exception", () ->
        client.search(s -> s.index("nothing").routing(LARGE).query(query), Document.class));
    refused("search, with a script", 400, "illegal_argument_exception", () ->
        client.search(s -> s.index(collection).routing(LARGE).query(q -> q.script(c -> c.script(Connect.script()))), Document.class));
  }

  private void single() throws IOException {
    var id = prefix + "-single";
    same("index", write(id, 5), "created");
    var got = client.get(g -> g.index(collection).id(id).routing(LARGE).sourceIncludes("sent"), Document.class);
    same("its content", got.source(), new Document(null, null, 5L));
    refused("index, late", 409, "version_conflict_engine_exception", () -> write(id, 4));
    var deleted = client.delete(d -> d.index(collection).id(id).routing(LARGE).version(6L).versionType(VersionType.External));
    same("delete", deleted.result().jsonValue(), "deleted");
    same("exists, of the deleted one", exists(id, LARGE), false);
  }

  private String write(String id, long version) throws IOException {
    return client.index(i -> i.index(collection).id(id).routing(LARGE).version(version).versionType(VersionType.External)
        .refresh(Refresh.WaitFor).document(document(5, false))).result().jsonValue();
  }

  private void go() throws IOException {
    long began = System.nanoTime();
    same("the line of the server", client.info().version().number().matches("[89]\\..*"), true);
    load();
    double seconds = Math.round((System.nanoTime() - began) / 1e8) / 10.0;
    change();
    counts();
    contents();
    searches();
    single();
    var seen = errors.entrySet().stream().map(e -> '"' + e.getKey() + "\":" + e.getValue()).sorted().collect(Collectors.joining(","));
    System.out.printf("{\"client\":\"elasticsearch-java\",\"version\":\"%s\",\"documents\":%d,\"stored\":%d,\"seconds\":%s,"
        + "\"errors\":{%s},\"operations\":{\"done\":%d,\"superseded\":%d,\"refused\":%d}}%n", Version.VERSION, count, count - DELETED,
        seconds, seen, count + firsts.size() + DELETED + 2, LATE + 1, POISON);
  }

  public static void main(String[] args) {
    try {
      new Journey(Connect.to(args[0]), args[1], Integer.parseInt(args[2]), args[3]).go();
      System.exit(0); // threads of the client would keep it
    } catch (Differs differs) {
      System.err.println("elasticsearch-java: " + differs.getMessage());
    } catch (Exception error) {
      error.printStackTrace();
    }
    System.exit(1);
  }
}
