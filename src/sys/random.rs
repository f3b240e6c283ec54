//! The kernel's random source, getrandom(2).

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes that nobody can guess.
///
/// # Errors
/// The kernel's reason; there is none once the machine is up.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut done = 0;
    while done < N {
        match getrandom(&mut bytes[done..], GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// The same, for those who cannot go on without.
pub fn some<const N: usize>() -> [u8; N] {
    bytes().expect("the kernel gives random bytes once it is up")
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_are_the_same() {
        let [one, other] = [(); 2].map(|()| super::bytes::<16>().expect("the kernel gives some"));
        assert_ne!(one, other);
    }
}
