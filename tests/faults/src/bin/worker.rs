//! A client as a process of its own: it can be killed and frozen, and leaves a log of all that it asked. See `acteon_faults::job`.

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match acteon_faults::job::main(&arguments).await {
        // What still waits for input, or for servers, is of no interest.
        Ok(()) => std::process::exit(0),
        Err(reason) => {
            eprintln!("{reason}");
            std::process::exit(1)
        }
    }
}
