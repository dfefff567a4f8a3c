//! The guard's program: the smallest thing that a kernel will run and that never ends.
//!
//! While the old container is stopped, nothing that runs refers to its image, its volumes and its networks, and a prune
//! takes them all. The guard is a running container of the old image that does. Images need not contain a shell, so
//! fleet brings the program itself: a static ELF file of one segment, written out below byte by byte. It makes one
//! system call that waits for a signal, in a loop, needs no memory of its own, and reads and writes nothing.

/// Where the program lies in the guard. Image and guard share a root, so the names are ones that no image has.
pub(crate) const PATH: &str = "/.fleet-guard";
/// Below which folder the volumes are mounted.
pub(crate) const VOLUMES: &str = "/.fleet-guard-volumes";

/// Size of the ELF header and of one program header, 64-bit.
const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
/// Where the segment is mapped; any page-aligned address above the kernel's minimum does.
const BASE: u64 = 0x40_0000;

/// `e_machine`, and the code: wait for a signal, for ever.
struct Machine {
    id: u16,
    code: &'static [u8],
}

/// Architectures for which there is a program, as the engine names them.
const MACHINES: &[(&[&str], Machine)] = &[
    (
        &["amd64", "x86_64"],
        Machine {
            id: 0x3e,
            code: &[
                0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34 (pause)
                0x0f, 0x05, // syscall
                0xeb, 0xf7, // jmp to the first byte
            ],
        },
    ),
    (
        &["arm64", "aarch64"],
        Machine {
            id: 0xb7,
            // There is no pause(2) here: ppoll(2) of no descriptors without a time limit is the same.
            code: &[
                0x00, 0x00, 0x80, 0xd2, // mov x0, 0 (no descriptors)
                0x01, 0x00, 0x80, 0xd2, // mov x1, 0 (that is, none)
                0x02, 0x00, 0x80, 0xd2, // mov x2, 0 (no time limit)
                0x03, 0x00, 0x80, 0xd2, // mov x3, 0 (no signal mask)
                0x28, 0x09, 0x80, 0xd2, // mov x8, 73 (ppoll)
                0x01, 0x00, 0x00, 0xd4, // svc 0
                0xfa, 0xff, 0xff, 0x17, // b to the first instruction
            ],
        },
    ),
];

/// The program for an architecture, none where there is no program.
pub(crate) fn program(architecture: &str) -> Option<Vec<u8>> {
    MACHINES
        .iter()
        .find(|(names, _)| names.contains(&architecture))
        .map(|(_, machine)| elf(machine))
}

fn elf(machine: &Machine) -> Vec<u8> {
    let entry = BASE + ELF_HEADER + PROGRAM_HEADER;
    let size = ELF_HEADER + PROGRAM_HEADER + machine.code.len() as u64;
    let mut file = Vec::with_capacity(256);
    // ELF header: magic, 64 bits, little endian, version 1, System V, padding.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(2u16.to_le_bytes()); // e_type: executable at fixed addresses
    file.extend(machine.id.to_le_bytes()); // e_machine
    file.extend(1u32.to_le_bytes()); // e_version
    file.extend(entry.to_le_bytes()); // e_entry
    file.extend(ELF_HEADER.to_le_bytes()); // e_phoff: the program header follows at once
    file.extend(0u64.to_le_bytes()); // e_shoff: no sections
    file.extend(0u32.to_le_bytes()); // e_flags
    file.extend(64u16.to_le_bytes()); // e_ehsize
    file.extend(56u16.to_le_bytes()); // e_phentsize
    file.extend(1u16.to_le_bytes()); // e_phnum
    file.extend([0; 6]); // e_shentsize, e_shnum, e_shstrndx
    // Program header: the whole file, readable and executable.
    file.extend(1u32.to_le_bytes()); // p_type: load
    file.extend(5u32.to_le_bytes()); // p_flags: read, execute
    file.extend(0u64.to_le_bytes()); // p_offset
    file.extend(BASE.to_le_bytes()); // p_vaddr
    file.extend(BASE.to_le_bytes()); // p_paddr
    file.extend(size.to_le_bytes()); // p_filesz
    file.extend(size.to_le_bytes()); // p_memsz
    file.extend(0x1_0000u64.to_le_bytes()); // p_align: 64 KiB, the largest page of either architecture
    file.extend(machine.code);
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn there_is_a_program_for_two_architectures_and_no_other() {
        assert_eq!(program("amd64").map(|file| file.len()), Some(129));
        assert_eq!(program("x86_64"), program("amd64"));
        assert_eq!(program("arm64").map(|file| file.len()), Some(148));
        assert_eq!(program("riscv64"), None);
    }

    #[test]
    fn the_loop_of_each_program_jumps_to_its_first_instruction() {
        let amd64 = MACHINES[0].1.code;
        let back = i8::from_le_bytes([amd64[8]]);
        assert_eq!(amd64.len() as i64 + i64::from(back), 0);
        let arm64 = MACHINES[1].1.code;
        let word = u32::from_le_bytes([arm64[24], arm64[25], arm64[26], arm64[27]]);
        // An unconditional branch: 26 bits of signed offset, in words, from the branch itself.
        let offset = ((word << 6).cast_signed()) >> 6;
        assert_eq!(24 + i64::from(offset) * 4, 0);
    }

    #[test]
    fn it_runs_on_this_machine_until_it_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guard");
        let file = program(std::env::consts::ARCH).expect("a program for this machine");
        std::fs::write(&path, file).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("executable");
        let mut child = Command::new(&path)
            .stdin(Stdio::null())
            .spawn()
            .expect("it runs");
        // A program that the kernel cannot run, or that returns, is gone at once; this one waits in the kernel.
        let stat = format!("/proc/{}/stat", child.id());
        let asleep = |text: String| {
            text.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('S'))
        };
        let until = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(&stat).is_ok_and(asleep) {
            assert!(Instant::now() < until, "it does not wait");
            assert!(
                child.try_wait().expect("asked").is_none(),
                "it ended by itself"
            );
        }
        child.kill().expect("killed");
        assert_eq!(child.wait().expect("waited for").signal(), Some(9));
    }
}
