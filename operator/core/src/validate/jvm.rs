//! Which options of the Java virtual machine a user may give. Pure.
//!
//! What tunes a node is open. What names a file, loads code, runs a program, opens a port, decides about security or
//! about the size of the heap is not: who writes a SearchCell gets no way around what the operator sets by it.

/// Longest option, in bytes.
const MAX_OPTION: usize = 512;

const HEAP: &str = "sets the size of the heap: set heap instead";
const PATHS: &str = "sets what the operator or the image sets: remove it";
const FILES: &str =
    "names a file: remove it; of files, only -Xlog may write below logs/, as file=logs/gc.log";
const RUNS: &str =
    "runs a program or waits for a person when the node fails: remove it, Kubernetes restarts the node";
const LOADS: &str = "loads foreign code or further options into the node: remove it";
const OTHER: &str = "does not tune a node: remove it; options begin with -XX:, -Xss, -Xmn, -Xlog or -D";

/// Flags of HotSpot (`-XX:`) that are refused, by the beginning of their names.
const FLAGS: &[(&str, &str)] = &[
    ("MaxHeapSize", HEAP),
    ("InitialHeapSize", HEAP),
    ("MaxRAM", HEAP),
    ("MinRAM", HEAP),
    ("InitialRAM", HEAP),
    ("OnError", RUNS),
    ("OnOutOfMemoryError", RUNS),
    ("ShowMessageBoxOnError", RUNS),
    ("Flags", LOADS),
    ("VMOptionsFile", LOADS),
    ("SharedArchiveFile", LOADS),
    ("ArchiveClassesAtExit", LOADS),
    ("AOT", LOADS),
    ("EnableDynamicAgentLoading", LOADS),
    ("StartAttachListener", LOADS),
];

/// System properties (`-D`) that are refused, by the beginning of their names: they are read by Java itself, by the
/// logging library or by Elasticsearch's start.
const PROPERTIES: &[(&str, &str)] = &[
    ("es.path.", PATHS),
    ("es.security", PATHS),
    ("es.distribution", PATHS),
    ("es.entitlements", PATHS),
    ("cli.", PATHS),
    ("java.", PATHS),
    ("javax.", PATHS),
    ("jdk.", PATHS),
    ("jna.", LOADS),
    ("sun.", PATHS),
    ("com.sun.", "opens the node to other programs: remove it"),
    ("log4j", LOADS),
    ("org.apache.logging", LOADS),
];

/// Properties among those that only tune; a value after the name must be that one.
const OPEN_PROPERTIES: &[&str] = &[
    "java.awt.headless",
    "java.locale.providers",
    "java.net.preferIPv4Stack",
    "java.net.preferIPv6Addresses",
    "java.util.concurrent.ForkJoinPool.common.parallelism",
    "javax.net.ssl.trustStore",
    "javax.net.ssl.trustStorePassword",
    "javax.net.ssl.trustStoreType",
    "jdk.nio.maxCachedBufferSize",
    "log4j2.disable.jmx",
    "log4j2.formatMsgNoLookups=true",
    "sun.net.inetaddr.negative.ttl",
    "sun.net.inetaddr.ttl",
];

/// Other options that only tune, by their beginnings after `-X`.
const OPEN_EXTENDED: &[&str] =
    &["batch", "comp", "int", "mixed", "mn", "noclassgc", "rs", "share:auto", "ss"];

/// What is wrong with one option; absent: nothing.
pub fn problem(option: &str) -> Option<&'static str> {
    if option.len() > MAX_OPTION {
        return Some("is longer than 512 bytes: shorten it");
    }
    if option.contains(|c: char| !c.is_ascii_graphic()) {
        return Some(
            "contains a space, a line break or a character beyond ASCII: give each option an entry of its own",
        );
    }
    let Some(option) = without_java_version(option) else {
        return Some(
            "is no option of the Java virtual machine: begin it with a dash, or with versions of Java \
             as in 21:-XX:+UseZGC",
        );
    };
    if let Some(flag) = option.strip_prefix("-XX:") {
        hotspot(flag)
    } else if let Some(property) = option.strip_prefix("-D") {
        system_property(property)
    } else if let Some(extended) = option.strip_prefix("-X") {
        extended_option(extended)
    } else {
        Some(if option.starts_with("--") || LOADING.iter().any(|start| option.starts_with(start)) {
            LOADS
        } else {
            OTHER
        })
    }
}

/// Standard options that load code.
const LOADING: &[&str] = &["-javaagent", "-agentlib", "-agentpath", "-cp", "-classpath", "-jar"];

fn hotspot(flag: &str) -> Option<&'static str> {
    let flag = flag.trim_start_matches(['+', '-']);
    let refused = FLAGS.iter().find(|(start, _)| flag.starts_with(start)).map(|(_, why)| *why);
    // Heap dumps, error files, recordings: Elasticsearch writes its own where its volumes are.
    refused.or_else(|| flag.contains(['/', '\\']).then_some(FILES))
}

fn system_property(property: &str) -> Option<&'static str> {
    let name = property.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Some(OTHER);
    }
    if OPEN_PROPERTIES.contains(&name) || OPEN_PROPERTIES.contains(&property) {
        return property.contains("..").then_some(FILES);
    }
    PROPERTIES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, why)| *why)
}

fn extended_option(option: &str) -> Option<&'static str> {
    if option.starts_with("ms") || option.starts_with("mx") {
        return Some(HEAP);
    }
    if let Some(rest) = option.strip_prefix("log") {
        return log(rest);
    }
    if OPEN_EXTENDED.iter().any(|start| option.starts_with(start)) {
        return option.contains(['/', '\\']).then_some(FILES);
    }
    Some(LOADS)
}

/// `-Xlog[:what[:output[:decorators[:options]]]]`; output is a stream or, with or without `file=`, a file.
fn log(rest: &str) -> Option<&'static str> {
    let mut parts = rest.split(':');
    if parts.next() != Some("") {
        return Some(LOADS);
    }
    let _what = parts.next();
    match parts.next().unwrap_or_default() {
        "" | "stdout" | "stderr" => None,
        output => {
            let name = output.strip_prefix("file=").and_then(|file| file.strip_prefix("logs/"));
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '%');
            let is_below_logs = name
                .is_some_and(|name| !name.is_empty() && name.chars().all(plain) && !name.starts_with('.'));
            (!is_below_logs).then_some(FILES)
        }
    }
}

/// The option itself: `8:-X`, `8-:-X` and `8-11:-X` are options for some versions of Java only.
fn without_java_version(option: &str) -> Option<&str> {
    if option.starts_with('-') {
        return (option.len() > 1).then_some(option);
    }
    let (versions, rest) = option.split_once(":-")?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (from, to) = versions.split_once('-').unwrap_or((versions, ""));
    if !number(from) || !(to.is_empty() || number(to)) || rest.is_empty() {
        return None;
    }
    // One more than the colon: the dash belongs to the option.
    option.get(versions.len() + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tunes_a_node_is_accepted() {
        for option in [
            "-Dlog4j2.formatMsgNoLookups=true",
            "-XX:+UseZGC",
            "21:-XX:+UseZGC",
            "17-:-Xss2m",
            "8-11:-Xint",
            "-Xmn2g",
            "-XX:G1HeapRegionSize=32m",
            "-XX:MaxDirectMemorySize=4g",
            "-XX:+HeapDumpOnOutOfMemoryError",
            "-XX:HeapDumpPath=data",
            "-Xlog:gc*,gc+age=trace,safepoint:file=logs/gc.log:utctime,level,pid,tags:filecount=32,filesize=64m",
            "-Xlog:gc",
            "-Xlog:disable",
            "-Xlog:all=warning:stderr:utctime",
            "-Des.networkaddress.cache.ttl=60",
            "-Dio.netty.allocator.numDirectArenas=0",
            "-Djava.net.preferIPv4Stack=true",
            "-Djavax.net.ssl.trustStore=/usr/share/elasticsearch/config/extra/cacerts",
            "-Duser.timezone=UTC",
        ] {
            assert_eq!(problem(option), None, "{option}");
        }
    }

    #[test]
    fn dangerous_options_are_refused() {
        for option in [
            "-Xms1g",
            "-Xmx1g",
            "8-:-Xmx1g",
            "-XX:MaxHeapSize=1g",
            "-XX:MaxRAMPercentage=80",
            "-Des.path.conf=/tmp",
            "-Des.security.manager=off",
            "-XX:OnError=kill",
            "-XX:OnOutOfMemoryError=kill",
            "-javaagent:/tmp/a.jar",
            "-agentlib:jdwp=transport=dt_socket",
            "-Xrunjdwp:transport=dt_socket",
            "-Xdebug",
            "-Xbootclasspath/a:/tmp/a.jar",
            "-Xverify:none",
            "-XX:VMOptionsFile=/tmp/o",
            "-XX:Flags=flags",
            "-XX:SharedArchiveFile=a",
            "-XX:AOTCache=a",
            "-XX:HeapDumpPath=/usr/share/elasticsearch/config",
            "-XX:ErrorFile=config/elasticsearch.yml",
            "-XX:StartFlightRecording:filename=/tmp/x",
            "-Xlog:gc:file=/usr/share/elasticsearch/config/users",
            "-Xlog:gc:config/users",
            "-Xlog:gc:file=logs/../config/users",
            "-Xlog:gc:file=logs/..",
            "-Xloggc:config/users",
            "-Dcom.sun.management.jmxremote.port=9999",
            "-Djava.security.properties=/tmp/p",
            "-Djava.security.manager=allow",
            "-Djava.class.path=/tmp",
            "-Djavax.net.debug=all",
            "-Djavax.net.ssl.trustStore=config/../../x",
            "-Djdk.tls.client.protocols=TLSv1",
            "-Dlog4j2.formatMsgNoLookups=false",
            "-Dlog4j.configurationFile=http://x/",
            "-Dlog4j2.configurationFile=/tmp/x",
            "-Djna.library.path=/tmp",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            "--module-path=/tmp",
            "--class-path",
            "-cp",
            "-version",
            "@/tmp/options",
            "-Dx=1\n-Xmx1g",
            "-Dx=1 -Xmx1g",
            "-Dx=\u{202e}1",
            "UseZGC",
            "x:-Xint",
            "-",
            "-D",
            "21:",
            "",
            "# comment",
        ] {
            assert!(problem(option).is_some(), "{option:?}");
        }
        assert!(problem(&format!("-D{}", "x".repeat(600))).is_some());
    }
}
