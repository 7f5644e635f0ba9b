import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.elasticsearch._types.Script;
import java.io.IOException;

/** A client as the 9 line has it. */
final class Connect {
  private Connect() {}

  static ElasticsearchClient to(String url) {
    return ElasticsearchClient.of(c -> c.host(url).useCompression(true));
  }

  /** In the 9 line every error of Elasticsearch is an ElasticsearchException. */
  static String refusal(IOException error) throws IOException {
    throw error;
  }

  static Script script() {
    return Script.of(s -> s.source(c -> c.scriptString("true")));
  }
}
