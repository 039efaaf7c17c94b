/**
 * A TCG plugin for QEMU that makes a COLO secondary execute what its memory holds.
 *
 * The fault (QEMU 11.1 under TCG; KVM is not concerned): QEMU stops a secondary with a run state for which it discards no
 * translated code, and then moves the primary's memory in under it. Code that differs from the secondary's own is executed
 * in its old form from then on, also after a failover (docs/qemu.md, "Under TCG").
 *
 * The remedy, from outside: QEMU tells the plugin when the VM stops and before it resumes (its vCPUs wait both times).
 *   stop in COLO  for each page of RAM that has translations (QEMU marks it: its "code" bit is not dirty), keep a copy
 *   resume        for each copy whose page differs now, have QEMU discard that page's translations; free the copy
 * Nothing happens on a primary or a VM without a pair. To discard everything instead would be exact as well, but then the
 * secondary would translate its working set again after each checkpoint, and be late.
 *
 * Tracked: a list of copies, each of three words (next copy, the page's address in QEMU, its address in the guest's RAM)
 * and 4096 bytes. Failure: without memory for a copy, the plugin discards that page's translations at once.
 *
 * Of what it calls only the plugin's frame (qemu_plugin_install, qemu_plugin_version) is an interface that QEMU keeps. A missing
 * function makes QEMU refuse to start; a function whose arguments changed would go unnoticed. The lab therefore uses it
 * with the series that it was tried with and no other (remedy.ts).
 */
import { type Instruction, sharedObject } from './shared-object.ts';

const CODE: readonly Instruction[] = [
  // int qemu_plugin_version: the version of the plugin interface, which QEMU compares with its own.
  { label: 'qemu_plugin_version' },
  '07 00 00 00',

  // int qemu_plugin_install(id, info, argc, argv): QEMU calls it once, at its start.
  { label: 'qemu_plugin_install' },
  '48 83 EC 08', //                                    sub  rsp, 8          functions are called with an aligned stack
  ['48 8D 3D', 'changed'], //                          lea  rdi, [changed]  the function to call when the VM stops or resumes
  '31 F6', //                                          xor  esi, esi        its first argument: none
  ['FF 15', 'qemu_add_vm_change_state_handler'], //    call
  '31 C0', //                                          xor  eax, eax        0: installed
  '48 83 C4 08', //                                    add  rsp, 8
  'C3', //                                             ret

  // void changed(void *, bool running, RunState)
  { label: 'changed' },
  '53', //                                             push rbx             also aligns the stack
  '40 84 F6', //                                       test sil, sil        running?
  ['0F 84', 'stopped'], //                             jz   stopped

  // The VM resumes: look at each copy.
  { label: 'nextCopy' },
  ['48 8B 1D', 'copies'], //                           mov  rbx, [copies]   the first copy
  '48 85 DB', //                                       test rbx, rbx
  ['0F 84', 'done'], //                                jz   done            there is none left
  '48 8B 03', //                                       mov  rax, [rbx]      takes it from the list
  ['48 89 05', 'copies'], //                           mov  [copies], rax
  '48 8B 7B 08', //                                    mov  rdi, [rbx+8]    the page as it is now
  '48 8D 73 18', //                                    lea  rsi, [rbx+24]   the page as it was
  'BA 00 10 00 00', //                                 mov  edx, 4096
  ['FF 15', 'memcmp'], //                              call
  '85 C0', //                                          test eax, eax
  ['0F 84', 'same'], //                                jz   same
  '31 FF', //                                          xor  edi, edi        no vCPU runs
  '48 8B 73 10', //                                    mov  rsi, [rbx+16]   the page's first address
  '48 8D 96 FF 0F 00 00', //                           lea  rdx, [rsi+4095] and its last
  ['FF 15', 'tb_invalidate_phys_range'], //            call
  { label: 'same' },
  '48 89 DF', //                                       mov  rdi, rbx
  ['FF 15', 'free'], //                                call
  ['E9', 'nextCopy'], //                               jmp  nextCopy

  // The VM stops: copy the pages with translations, if this is a secondary.
  { label: 'stopped' },
  ['FF 15', 'migration_incoming_in_colo_state'], //    call
  '84 C0', //                                          test al, al
  ['0F 84', 'done'], //                                jz   done
  ['48 8D 3D', 'block'], //                            lea  rdi, [block]    the function to call for each block of RAM
  '31 F6', //                                          xor  esi, esi        its second argument: none
  ['FF 15', 'qemu_ram_foreach_block'], //              call
  { label: 'done' },
  '5B', //                                             pop  rbx
  'C3', //                                             ret

  // int block(RAMBlock *, void *)
  { label: 'block' },
  '53', //                                             push rbx             will be the page's address in QEMU
  '55', //                                             push rbp             the page's address in the guest's RAM
  '41 54', //                                          push r12             the end of the block in the guest's RAM
  '49 89 FC', //                                       mov  r12, rdi        until then: the block
  ['FF 15', 'qemu_ram_get_host_addr'], //              call
  '48 89 C3', //                                       mov  rbx, rax
  '4C 89 E7', //                                       mov  rdi, r12
  ['FF 15', 'qemu_ram_get_offset'], //                 call
  '48 89 C5', //                                       mov  rbp, rax
  '4C 89 E7', //                                       mov  rdi, r12
  ['FF 15', 'qemu_ram_get_used_length'], //            call
  '4C 8D 64 05 00', //                                 lea  r12, [rbp+rax]
  { label: 'page' },
  '4C 39 E5', //                                       cmp  rbp, r12
  ['0F 83', 'blockDone'], //                           jae  blockDone
  '48 89 EF', //                                       mov  rdi, rbp
  'BE 01 00 00 00', //                                 mov  esi, 1          the code bit (DIRTY_MEMORY_CODE)
  ['FF 15', 'physical_memory_get_dirty_flag'], //      call
  '84 C0', //                                          test al, al
  ['0F 85', 'nextPage'], //                            jnz  nextPage        no translations
  'BF 18 10 00 00', //                                 mov  edi, 4096+24
  ['FF 15', 'malloc'], //                              call
  '48 85 C0', //                                       test rax, rax
  ['0F 84', 'noMemory'], //                            jz   noMemory
  ['48 8B 0D', 'copies'], //                           mov  rcx, [copies]   puts the copy first in the list
  '48 89 08', //                                       mov  [rax], rcx
  '48 89 58 08', //                                    mov  [rax+8], rbx
  '48 89 68 10', //                                    mov  [rax+16], rbp
  ['48 89 05', 'copies'], //                           mov  [copies], rax
  '48 8D 78 18', //                                    lea  rdi, [rax+24]
  '48 89 DE', //                                       mov  rsi, rbx
  'BA 00 10 00 00', //                                 mov  edx, 4096
  ['FF 15', 'memcpy'], //                              call
  { label: 'nextPage' },
  '48 81 C3 00 10 00 00', //                           add  rbx, 4096
  '48 81 C5 00 10 00 00', //                           add  rbp, 4096
  ['E9', 'page'], //                                   jmp  page
  { label: 'noMemory' },
  '31 FF', //                                          xor  edi, edi
  '48 89 EE', //                                       mov  rsi, rbp
  '48 8D 95 FF 0F 00 00', //                           lea  rdx, [rbp+4095]
  ['FF 15', 'tb_invalidate_phys_range'], //            call                 no vCPU runs before the page has changed
  ['E9', 'nextPage'], //                               jmp  nextPage
  { label: 'blockDone' },
  '31 C0', //                                          xor  eax, eax        0: go on with the next block
  '41 5C', //                                          pop  r12
  '5D', //                                             pop  rbp
  '5B', //                                             pop  rbx
  'C3', //                                             ret
];

/** Functions of QEMU's own, which it exports for its modules. */
const FROM_QEMU = [
  'qemu_add_vm_change_state_handler',
  'migration_incoming_in_colo_state',
  'qemu_ram_foreach_block',
  'qemu_ram_get_host_addr',
  'qemu_ram_get_offset',
  'qemu_ram_get_used_length',
  'physical_memory_get_dirty_flag',
  'tb_invalidate_phys_range',
] as const;

const FROM_C = ['malloc', 'free', 'memcpy', 'memcmp'] as const;

/** Returns the plugin's file. */
export function stalePlugin(): Buffer {
  return sharedObject({
    code: CODE,
    exports: ['qemu_plugin_version', 'qemu_plugin_install'],
    imports: [...FROM_QEMU, ...FROM_C],
    variables: ['copies'],
  });
}
