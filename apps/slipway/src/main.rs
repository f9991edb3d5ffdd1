//! `slipway`: the command line. Parses arguments and calls one function per command.

fn main() {}
