/**
 * Kernels: the few loops over bytes that are run for every event, compiled from AssemblyScript to WebAssembly by
 * `npm run build`. Each stands beside a TypeScript of the same meaning, which is the reference, and a property test holds
 * them equal. The sources are `<folder>/assembly/<name>.ts`; whoever loads one owns its memory.
 */
import { existsSync, readFileSync } from 'node:fs';

const PAGE_BYTES = 65_536;

export interface Kernel<Exports> {
  readonly exports: Exports;
  readonly memory: WebAssembly.Memory;
}

/** From the sources, where a test runs, as well as from the build. */
function builtFile(folder: string, name: string): URL {
  const path = `${folder}/assembly/${name}.wasm`;
  const beside = new URL(`../${path}`, import.meta.url);
  return existsSync(beside) ? beside : new URL(`../dist/${path}`, import.meta.url);
}

/**
 * Loads a kernel with a memory of its own.
 *
 * @param folder the folder of the project that it belongs to
 * @param bytesFirst of its memory, which grows by `memory.grow` or the kernel's own
 * @param bytesMax 4 GiB at most
 */
export function loadKernel<Exports>(
  folder: 'aggregator' | 'ingest',
  name: string,
  o: { readonly bytesFirst: number; readonly bytesMax: number },
): Kernel<Exports> {
  const memory = new WebAssembly.Memory({
    initial: Math.ceil(o.bytesFirst / PAGE_BYTES),
    maximum: Math.ceil(o.bytesMax / PAGE_BYTES),
  });
  const abort = (): never => {
    throw new Error(`the kernel ${folder}/${name} met what it holds impossible`);
  };
  const module = new WebAssembly.Module(readFileSync(builtFile(folder, name)));
  const instance = new WebAssembly.Instance(module, { env: { memory, abort } });
  return { exports: instance.exports as Exports, memory };
}
