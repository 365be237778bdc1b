// The line that a run leaves in bench/results: what was measured, of which sources, on which machine.
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Report } from './report.ts';

/** When something was measured, of which sources and on which machine. */
export interface Origin {
  readonly at: string;
  /** '' outside of a repository. */
  readonly commit: string;
  readonly isDirty: boolean;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryBytes: number;
    readonly node: string;
    readonly platform: string;
  };
}

export interface ResultLine extends Origin {
  readonly seed: number;
  readonly report: Report;
}

export function resultLine(report: Report, nowMs: number): ResultLine {
  return { ...originOf(nowMs), seed: report.measurements.options.seed, report };
}

export function originOf(nowMs: number): Origin {
  const [first, ...others] = cpus();
  return {
    at: new Date(nowMs).toISOString(),
    commit: git('rev-parse', 'HEAD'),
    isDirty: git('status', '--porcelain', '--untracked-files=no') !== '',
    machine: {
      cpu: first?.model.trim() ?? '',
      cores: others.length + 1,
      memoryBytes: totalmem(),
      node: process.version,
      platform: `${process.platform} ${process.arch}`,
    },
  };
}

/** Appends it to the file of its month and returns the file. */
export function keepResult(line: ResultLine): string {
  const folder = join(projectRoot(), 'bench', 'results');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${line.at.slice(0, 7)}.jsonl`);
  appendFileSync(file, `${JSON.stringify(line)}\n`);
  return file;
}

function git(...args: string[]): string {
  try {
    return execFileSync('git', args, {
      cwd: projectRoot(),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return '';
  }
}

/** From the sources as well as from dist. */
export function projectRoot(): string {
  const above = fileURLToPath(new URL('../../', import.meta.url));
  return existsSync(join(above, 'package.json')) ? above : join(above, '..');
}
