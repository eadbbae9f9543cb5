//! Programs that tests run and that are no servers, such as those that run clients in other languages.

use acteon_test_support::find_program;

use super::apt;
use crate::Failure;
use crate::interrupt::Interrupt;

/// A program that tests find on the PATH.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    package: &'static str,
}

/// What runs the clients that are tried on the engine. Their libraries are fetched by the tests.
pub(crate) const CLIENT_TOOLS: &[Tool] = &[
    Tool { program: "redis-cli", package: "redis-tools" },
    Tool { program: "redis-benchmark", package: "redis-tools" },
    Tool { program: "python3", package: "python3" },
    Tool { program: "pip3", package: "python3-pip" },
    Tool { program: "node", package: "nodejs" },
    Tool { program: "npm", package: "npm" },
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
        find_program(self.program).is_some()
    }

    fn missing(&self) -> Failure {
        let Self { program, package } = self;
        Failure(format!(
            "{program} is not on the PATH, and apt cannot install it here. On Debian and Ubuntu it is in the package {package}; \
             or leave out the suites that need it: cargo xtask test --no-services"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Tool;
    use crate::interrupt::Interrupt;

    #[test]
    fn what_is_there_is_not_installed() {
        let shell = Tool { program: "sh", package: "acteon-no-such-package" };
        assert!(shell.require(&Interrupt::fixed(false)).is_ok());
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let failure = Tool { program: "some-program", package: "some-package" }.missing();
        assert!(failure.0.contains("some-program") && failure.0.contains("some-package"), "{}", failure.0);
    }
}
