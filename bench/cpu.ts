// The CPU that a process has used, from the kernel: user and system time together, in milliseconds.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const TICKS_PER_SECOND = 100; // USER_HZ, which Linux has fixed for what it shows in /proc

export function cpuMs(pid: number): number {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return fromPs(pid);
  }
  // The name of the process, in parentheses, may hold anything; what follows is separated by spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_PER_SECOND;
}

/** Without /proc: [[dd-]hh:]mm:ss.cc */
function fromPs(pid: number): number {
  const text = execFileSync('ps', ['-o', 'time=', '-p', String(pid)], { encoding: 'utf8' }).trim();
  const seconds = text
    .replace('-', ':')
    .split(':')
    .reduce((sum, part, at, parts) => sum + Number(part) * weight(at, parts.length), 0);
  return seconds * 1_000;
}

function weight(at: number, parts: number): number {
  return [1, 60, 3_600, 86_400][parts - 1 - at] ?? 0;
}
