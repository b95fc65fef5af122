use std::{fmt::Display, io, path::Path, process::ExitCode, time::Duration};

use clap::Parser as _;
use tokio::runtime::Builder;
use tollgate::{
    cli::{
        Cli, Command, audit, check, demo, explain, export, healthcheck, keys, reconcile, reprice, serve, simulate,
        simulate_limits,
    },
    clock::Clock,
    config, telemetry,
};

/// A request makes about a hundred small allocations: glibc's allocator takes a quarter more processor time for a small
/// request (`scripts/bench`). Without huge pages, which would double the memory of a gateway at rest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For what runs on threads of its own when all else has stopped.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match runtime_builder().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tollgate cannot start: no threads or descriptors left: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(cli));
    // A name that nobody resolves would hold up the end: the system's resolver cannot be told to stop.
    runtime.shutdown_timeout(LAST_WAIT);
    telemetry::finish(LAST_WAIT);
    code
}

/// Where there is one core, threads that hand work to each other only cost time.
fn runtime_builder() -> Builder {
    match std::thread::available_parallelism() {
        Ok(cores) if cores.get() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    }
}

async fn run(cli: Cli) -> ExitCode {
    let config = cli.config.as_deref();
    match cli.command.unwrap_or(Command::Serve(serve::ServeArgs::default())) {
        Command::Serve(args) => serve::run(&args, config).await,
        Command::Demo(args) => demo::run(&args, config).await,
        Command::Simulate(args) => said(simulate::run(args).await),
        Command::Keys(command) => said(keys::run(command, config).await),
        Command::Explain(args) => said(explain::run(&args, config).await),
        Command::Audit(command) => audit::run(command, config).await,
        Command::Export(args) => export::run(args, config).await,
        Command::Reprice(args) => reprice::run(args, config).await,
        Command::Reconcile(args) => reconcile::run(args, config).await,
        Command::SimulateLimits(args) => simulate_limits::run(args, config).await,
        Command::Check(args) => check(&args, config),
        Command::Healthcheck => healthcheck::run(config).await,
    }
}

fn check(args: &check::CheckArgs, config_path: Option<&Path>) -> ExitCode {
    let (env, now) = (config::environment(), Clock::system().now());
    match check::run(args, config_path, &env, now, &mut io::stdout().lock()) {
        Ok(code) => ExitCode::from(code),
        // Nobody is left to read the report.
        Err(_closed_pipe) => ExitCode::FAILURE,
    }
}

/// A command's failure, in one line on standard error.
fn said<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}
