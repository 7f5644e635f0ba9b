//! What a node shows to whoever connects: its certificates, and whom it trusts. Nothing is sent to it, and nobody is
//! believed: this looks, it does not talk. Effects: network.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, IpAddr, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use searchcell_core::names::{HTTP_PORT, TRANSPORT_PORT};
use searchcell_core::security::Served;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::parse;

/// Longest time that one look may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Looks at both ports of a node.
pub async fn served(address: &str) -> Result<Served, String> {
    let (http, transport) = tokio::join!(look(address, HTTP_PORT), look(address, TRANSPORT_PORT));
    let (http, transport) = (http?, transport?);
    Ok(Served { http: http.certificate, transport: transport.certificate, trusted: transport.trusted })
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Shown, and not yet signed for.
    claimed: Option<String>,
    certificate: Option<String>,
    trusted: BTreeSet<String>,
}

async fn look(address: &str, port: i32) -> Result<Seen, String> {
    let address: std::net::IpAddr = address.parse().map_err(|_| "it has no address".to_owned())?;
    let port = u16::try_from(port).map_err(|_| "it has no port".to_owned())?;
    let witness = Arc::new(Witness { provider: Arc::new(ring::default_provider()), seen: Mutex::default() });
    let config = ClientConfig::builder_with_provider(Arc::clone(&witness.provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| "no version of TLS is known".to_owned())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::clone(&witness) as Arc<dyn ResolvesClientCert>);
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::IpAddress(IpAddr::from(address));
    let handshake = async {
        let stream = TcpStream::connect((address, port)).await.ok()?;
        // A node that asks for a certificate ends the connection, for there is none. By then it has shown its own.
        let _ = connector.connect(name, stream).await;
        Some(())
    };
    let reached = timeout(LIMIT, handshake).await.ok().flatten();
    let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match (reached, &seen.certificate) {
        (_, Some(_)) => Ok(seen),
        (Some(()), None) => Err(format!("port {port} shows no certificate")),
        (None, None) => Err(format!("port {port} does not answer")),
    }
}

/// Notes what it sees.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Seen>,
}

impl Witness {
    fn signed(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.certificate = seen.claimed.take();
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.claimed = Some(parse::fingerprint(end_entity.as_ref()));
        Ok(ServerCertVerified::assertion())
    }

    // That the node has the key is still checked: a certificate alone is public.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
            .inspect(|_| self.signed())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
            .inspect(|_| self.signed())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Witness {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.trusted = root_hint_subjects.iter().map(|subject| parse::subject(subject)).collect();
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}
