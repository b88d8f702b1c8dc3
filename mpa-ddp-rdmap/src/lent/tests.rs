use super::*;
use crate::testing::TestMemory;

fn cut(bytes: &[u8], size: usize) -> Vec<&[u8]> {
    bytes.chunks(size).flat_map(|chunk| [chunk, &[]]).collect()
}

#[test]
fn a_run_reads_the_same_however_it_is_cut() {
    let bytes: Vec<u8> = (0..100).collect();
    for size in 1..=100 {
        let parts = cut(&bytes, size);
        let run = Run::new(&parts);
        assert_eq!(run.len(), 100);
        for (start, length) in [(0, 100), (0, 0), (100, 0), (3, 50), (99, 1), (17, 2)] {
            let piece = run.from(start).to(length);
            let mut copy = vec![0; length];
            assert!(piece.peek(&mut copy));
            assert_eq!(copy, &bytes[start..start + length]);
            assert_eq!(piece.slices().collect::<Vec<_>>().concat(), copy);
            if let Some(slice) = piece.contiguous() {
                assert_eq!(slice, copy);
            }
        }
        assert!(!run.from(98).peek(&mut [0; 3]));
    }
}

#[test]
fn placing_a_run_cut_finer_than_one_call_takes_is_all_or_nothing() {
    let bytes: Vec<u8> = (1..=100).collect();
    for size in [1, 3, 12, 13, 50, 100] {
        let parts = cut(&bytes, size);
        let memory = TestMemory::new();
        let stag = memory.register(0x1000, 150);
        let run = Run::new(&parts);
        run.place(&memory, stag, TaggedOffset(0x1010), Access::RemoteWrite).unwrap();
        assert_eq!(memory.read(stag, 0x1010, 100), bytes);

        let memory = TestMemory::new();
        let stag = memory.register(0x1000, 99);
        run.place(&memory, stag, TaggedOffset(0x1000), Access::RemoteWrite).unwrap_err();
        assert_eq!(memory.read(stag, 0x1000, 99), vec![0; 99], "cut into {size}");
    }
}
