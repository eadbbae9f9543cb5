//! A client of the API, and the API on a free port of this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Once;
use std::time::Duration;

use reqwest::header::IF_MATCH;
use reqwest::{Method, Response};
use tokio::net::TcpListener;

use crate::api::{TOKEN, router};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the API in the background for as long as the runtime runs.
pub(crate) async fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router()).await });
    Ok(address)
}

/// Sends requests to the API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> reqwest::Result<Self> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // The client asks for one though nothing is encrypted here. An error means that there is one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        Ok(Self { address, http: reqwest::Client::builder().timeout(TIMEOUT).build()? })
    }

    /// Reads without a token.
    #[cfg_attr(not(test), expect(dead_code, reason = "the two clients read under their locks"))]
    pub(crate) async fn read(&self) -> reqwest::Result<Response> {
        self.request(Method::GET, "/page").send().await
    }

    /// Reads, and keeps away all who have an older token.
    pub(crate) async fn fence(&self, token: &str) -> reqwest::Result<Response> {
        self.request(Method::POST, "/page/fence").header(TOKEN, token).send().await
    }

    /// Writes under a token, over a version if one is given.
    pub(crate) async fn write(
        &self,
        token: Option<&str>,
        version: Option<&str>,
        text: &str,
    ) -> reqwest::Result<Response> {
        let mut request = self.request(Method::PUT, "/page").body(text.to_owned());
        if let Some(token) = token {
            request = request.header(TOKEN, token);
        }
        if let Some(version) = version {
            request = request.header(IF_MATCH, version);
        }
        request.send().await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }
}
