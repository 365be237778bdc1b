// What the processes of the pipeline have used, from /proc: CPU with that of all children, which is how Postgres
// works, and memory. Elsewhere than on Linux, CPU without children (bench/cpu.ts) and no memory.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cpuMs } from '../cpu.ts';

const TICKS_PER_SECOND = 100; // USER_HZ, which Linux has fixed for what it shows in /proc

/** Milliseconds of CPU of a process, of its children, and of those that have ended. */
export function treeCpuMs(pid: number): number {
  if (!existsSync('/proc/self/stat')) return cpuMs(pid);
  return treeOf(pid).reduce((sum, one) => sum + ownCpuMs(one), 0);
}

function ownCpuMs(pid: number): number {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === null) return 0;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // Its own user and system time, and those of the children that it has waited for.
  return ([11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0) * 1_000) / TICKS_PER_SECOND;
}

/** Bytes in memory now. What children share is counted in parts; that needs the rights of their owner. */
export function residentBytes(pid: number): number {
  const tree = treeOf(pid);
  if (tree.length === 1) return kibibytes(pid, 'status', 'VmRSS');
  const parts = tree.map((one) => kibibytes(one, 'smaps_rollup', 'Pss'));
  return parts.every((part) => part > 0)
    ? parts.reduce((sum, part) => sum + part, 0)
    : tree.reduce((sum, one) => sum + kibibytes(one, 'status', 'VmRSS'), 0);
}

/** The most that a process without children ever had; 0 where the system does not tell. */
export function peakBytes(pid: number): number {
  return kibibytes(pid, 'status', 'VmHWM');
}

function treeOf(pid: number): number[] {
  const found = [pid];
  for (const parent of found) {
    for (const thread of list(`/proc/${parent}/task`)) {
      const children = read(`/proc/${parent}/task/${thread}/children`) ?? '';
      for (const child of children.split(' ')) if (child.trim() !== '') found.push(Number(child));
    }
  }
  return found;
}

function kibibytes(pid: number, file: string, field: string): number {
  const text = read(`/proc/${pid}/${file}`) ?? '';
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1_024;
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
