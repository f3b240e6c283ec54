//! Releases that are signed well and whose program cannot take over: the preflight finds out.

use std::fs;

use super::{BINARY, Scene};
use crate::support::release::{pack, release};

/// The offset of `e_machine` in an ELF header (elf(5)).
const MACHINE: usize = 18;
/// The length of an ELF header and of one program header, for 64 bits.
const HEADER: u64 = 64;
const PROGRAM_HEADER: u16 = 56;

/// The smallest program of this machine: one instruction that no processor has.
fn crashing() -> Vec<u8> {
    let ours = fs::read(BINARY).expect("the binary is built");
    let entry = 0x40_0000 + HEADER + u64::from(PROGRAM_HEADER);
    let mut elf = ours[..20].to_vec();
    // ET_EXEC, which needs no loader.
    elf[16..18].copy_from_slice(&2_u16.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    for number in [entry, HEADER, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for number in [64, PROGRAM_HEADER, 1, 0, 0, 0] {
        elf.extend(number.to_le_bytes());
    }
    // PT_LOAD, readable and executable: the whole file.
    let length = HEADER + u64::from(PROGRAM_HEADER) + 4;
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    for number in [0, 0x40_0000, 0x40_0000, length, length, 0x1000] {
        elf.extend(number.to_le_bytes());
    }
    // ud2 on x86-64, udf on aarch64.
    elf.extend([0x0f, 0x0b, 0, 0]);
    elf
}

/// The same for a machine that nobody has.
fn foreign() -> Vec<u8> {
    let mut elf = crashing();
    elf[MACHINE..MACHINE + 2].copy_from_slice(&0x7777_u16.to_le_bytes());
    elf
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_take_over_is_refused_and_removed() {
    let mut scene = Scene::start().await;
    let other = fs::read("/bin/true").expect("every system has it");
    for (case, image) in [
        ("it crashes", crashing()),
        ("it is for another machine", foreign()),
        ("it is empty", Vec::new()),
        ("it is a script", b"#!/bin/sh\nexit 0\n".to_vec()),
        ("it is another program", other),
    ] {
        scene.clear();
        scene.publisher.release("1.1.0", &image);
        scene.refused_as_published(case).await;
    }
    scene.clear();
    let ours = fs::read(BINARY).expect("the binary is built");
    let (dir, key) = (scene.publisher.dir.path(), &scene.publisher.key);
    pack::publish(dir, &release("1.1.0"), &ours, key).expect("publishes");
    scene.refused_as_published("it says another version").await;
    insta::assert_snapshot!(scene.table().await, @r"
    it crashes → the new image cannot take over (killed by signal 4)
    it is for another machine → the new image does not start: Exec format error (os error 8)
    it is empty → the new image does not start: Exec format error (os error 8)
    it is a script → the new image is a script, not a program
    it is another program → the new image is not a hermes gateway: it printed no report
    it says another version → the new image says that it is hermes-gateway 1.0.0, and hermes-gateway 1.1.0 was asked for
    ");
    scene.updates().await;
}
