//! Certificates: what a node shows, asked with curl, and ones that a test makes for itself. Effects: network.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use serde_json::{Value, json};

use crate::objects::text;
use crate::shell;

/// Text of an entry of a Secret; empty when it has none.
pub fn entry(secret: &Value, key: &str) -> String {
    let encoded = secret["data"][key].as_str().unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The certificate that a port shows, as PEM. `identity`: files of certificate and key to show oneself.
pub async fn shown(address: &str, port: u16, identity: Option<(&Path, &Path)>) -> Result<String, String> {
    let url = format!("https://{address}:{port}/");
    let mut arguments =
        vec!["-k", "-s", "-o", "/dev/null", "-w", "%{certs}", "--http0.9", "--max-time", "20"];
    let files = identity.map(|(certificate, key)| [certificate, key].map(|path| path.display().to_string()));
    if let Some([certificate, key]) = &files {
        arguments.extend(["--cert", certificate, "--key", key]);
    }
    arguments.push(&url);
    let output = shell::run("curl", &arguments, None, Duration::from_secs(30)).await?;
    let all = output.stdout;
    let begin = all.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| format!("curl: {}", output.code))?;
    let end = "-----END CERTIFICATE-----";
    let length = all[begin..].find(end).ok_or("half a certificate")? + end.len();
    Ok(normal(&all[begin..begin + length]))
}

/// PEM without what differs between those who write it.
pub fn normal(pem: &str) -> String {
    pem.split("-----").nth(2).unwrap_or_default().split_whitespace().collect()
}

/// An authority of a test.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A Secret as cert-manager writes it, with a certificate for these names.
    pub fn secret(&self, name: &str, names: &[String], expired: bool) -> Value {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(if expired { 2021 } else { 2099 }, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem(), "ca.crt": self.pem},
        })
    }
}

/// Name and address of a pod.
pub fn name_and_address(pod: &Value) -> (String, String) {
    (text(pod, "/metadata/name").to_owned(), text(pod, "/status/podIP").to_owned())
}
