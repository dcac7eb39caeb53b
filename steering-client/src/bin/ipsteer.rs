//! The `ipsteer` command; the wheel's command calls the same function.

fn main() {
    std::process::exit(ipsteer::cli::main(std::env::args_os()));
}
