//! What a process costs, as the kernel counts it. Effects: reads /proc.

use std::time::Duration;

/// What one process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Time of processors, in the process and in the kernel for it, of its children that have ended, too.
    pub cpu: Duration,
    /// Most memory that was resident, in bytes.
    pub peak: u64,
    /// Memory that is resident now, in bytes.
    pub resident: u64,
}

/// What a process that runs has used; absent: there is none.
pub fn of(process: u32) -> Option<Cost> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program is between parentheses, and may have anything in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
    };
    // USER_HZ is 100 on every Linux that there is.
    Some(Cost { cpu: Duration::from_millis(ticks * 10), peak: bytes("VmHWM:")?, resident: bytes("VmRSS:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let before = of(std::process::id()).unwrap();
        let mut sum = 1_u64;
        let cost = loop {
            (0..1_000_000_u64).for_each(|n| sum = std::hint::black_box(sum.wrapping_mul(n | 1)));
            let now = of(std::process::id()).unwrap();
            if now.cpu > before.cpu {
                break now;
            }
        };
        assert!(cost.peak >= cost.resident && cost.resident > 0 && sum > 0);
        assert_eq!(of(u32::MAX), None);
    }
}
