//! What tests and counts need besides servers: programs that run clients in other languages, a library that steps clocks, and valgrind.

use acteon_test_support::{faketime_library, find_program};

use super::apt;
use crate::Failure;
use crate::interrupt::Interrupt;

/// A program that tests find on the PATH, or a library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    kind: Kind,
}

/// Where tests find it.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    OnPath,
    /// Where distributions keep libfaketime.
    FaketimeLibrary,
}

/// What steps the clocks of servers and clients.
pub(crate) const CLOCK_TOOLS: &[Tool] =
    &[Tool { program: "libfaketime", package: "libfaketime", kind: Kind::FaketimeLibrary }];

/// What counts instructions.
pub(crate) const COUNTING_TOOLS: &[Tool] = &[Tool { program: "valgrind", package: "valgrind", kind: Kind::OnPath }];

/// What runs the clients that are tried on the engine. Their libraries are fetched by the tests.
pub(crate) const CLIENT_TOOLS: &[Tool] = &[
    Tool { program: "redis-cli", package: "redis-tools", kind: Kind::OnPath },
    Tool { program: "redis-benchmark", package: "redis-tools", kind: Kind::OnPath },
    Tool { program: "python3", package: "python3", kind: Kind::OnPath },
    Tool { program: "pip3", package: "python3-pip", kind: Kind::OnPath },
    Tool { program: "node", package: "nodejs", kind: Kind::OnPath },
    Tool { program: "npm", package: "npm", kind: Kind::OnPath },
];

impl Tool {
    /// Installs it unless it is there.
    pub(crate) fn require(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        if self.is_there() {
            return Ok(());
        }
        apt::install(self.package, interrupt)?;
        if self.is_there() { Ok(()) } else { Err(self.missing()) }
    }

    fn is_there(&self) -> bool {
        match self.kind {
            Kind::OnPath => find_program(self.program).is_some(),
            Kind::FaketimeLibrary => faketime_library().is_some(),
        }
    }

    fn missing(&self) -> Failure {
        let Self { program, package, kind } = self;
        let place = if *kind == Kind::OnPath { "on the PATH" } else { "among the libraries" };
        Failure(format!(
            "{program} is not {place}, and apt cannot install it here. On Debian and Ubuntu it is in the package {package}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Tool};
    use crate::interrupt::Interrupt;

    #[test]
    fn what_is_there_is_not_installed() {
        let shell = Tool { program: "sh", package: "acteon-no-such-package", kind: Kind::OnPath };
        assert!(shell.require(&Interrupt::fixed(false)).is_ok());
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let failure = Tool { program: "some-program", package: "some-package", kind: Kind::OnPath }.missing();
        assert!(failure.0.contains("some-program") && failure.0.contains("some-package"), "{}", failure.0);
    }
}
