//! Runs Redis in Docker for as long as its standard input stays open.
//!
//! `cargo xtask test` starts this where there is no redis-server and none can be installed. It prints the URL as its only line of
//! output once the server answers. When the input ends, also because xtask was killed, the container is removed.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ImageExt};
use testcontainers_modules::redis::Redis;
use tokio::task::spawn_blocking;

const REDIS_TAG: &str = "7"; // the major version that the drivers are measured and tested with
const REDIS_PORT: u16 = 6379;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot run Redis in Docker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let container = Redis::default().with_tag(REDIS_TAG).start().await?;
    let served = serve(&container).await;
    container.rm().await?;
    served
}

async fn serve(container: &ContainerAsync<Redis>) -> Result<(), Box<dyn Error>> {
    let host = container.get_host().await?;
    let port = container.get_host_port_ipv4(REDIS_PORT.tcp()).await?;
    println!("redis://{host}:{port}");
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(())
}
