import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.elasticsearch._types.Script;
import co.elastic.clients.json.jackson.Jackson3JsonpMapper;
import co.elastic.clients.transport.rest_client.RestClientTransport;
import java.io.IOException;
import java.util.regex.Pattern;
import org.apache.http.HttpHost;
import org.apache.http.util.EntityUtils;
import org.elasticsearch.client.ResponseException;
import org.elasticsearch.client.RestClient;

/** A client as the 8 line has it. */
final class Connect {
  private Connect() {}

  static ElasticsearchClient to(String url) {
    var client = RestClient.builder(HttpHost.create(url)).setCompressionEnabled(true)
        .setRequestConfigCallback(config -> config.setSocketTimeout(120_000)).build();
    return new ElasticsearchClient(new RestClientTransport(client, new Jackson3JsonpMapper()));
  }

  /** Status and type of an error that the 8 line leaves to its low-level client, as it does with 409. */
  static String refusal(IOException error) throws IOException {
    if (!(error instanceof ResponseException told)) {
      throw error;
    }
    var type = Pattern.compile("\"type\":\"(\\w+)\"").matcher(EntityUtils.toString(told.getResponse().getEntity()));
    return told.getResponse().getStatusLine().getStatusCode() + (type.find() ? " " + type.group(1) : "");
  }

  static Script script() {
    return Script.of(s -> s.source("true"));
  }
}
