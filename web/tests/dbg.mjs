import { createRequire } from "node:module"; import { readFileSync } from "node:fs"; import { load } from "./unit/load.mjs";
const ort = await import("../node_modules/onnxruntime-web/dist/ort.node.min.mjs");
ort.env.wasm.numThreads=1;
const dir="../src/deop/assets/nano/";
const g=readFileSync(process.argv[2]??dir+"encode.onnx"), w=new Uint8Array(readFileSync(dir+"model.safetensors"));
const cpu=()=>{const {user,system}=process.cpuUsage(); return (user+system)/1e6};
for (const level of (process.argv[3]??'all').split(',')) {
let t=cpu();
const s=await ort.InferenceSession.create(new Uint8Array(g),{executionProviders:['wasm'],externalData:[{path:'model.safetensors',data:w}],enableMemPattern:false,enableCpuMemArena:process.argv[4]==='arena',graphOptimizationLevel:level,logSeverityLevel:3,extra:{session:{disable_quant_qdq:'1'}}});
console.log(level,'create',(cpu()-t).toFixed(2));
for(let i=0;i<4;i++){ const H=448,W=672; const px=new Float32Array(3*H*W); for(let k=0;k<px.length;k++) px[k]=Math.sin(k*0.001)+Math.sin(k*0.37)*0.3;
t=cpu(); const r=await s.run({pixels:new ort.Tensor('float32',px,[1,3,H,W]),size:new ort.Tensor('int64',BigInt64Array.from([448n,672n]),[2])}); console.log('run cpu s',(cpu()-t).toFixed(2), r.masks.dims.join()); 
if(i===3){ const {assemble}=await load("engine/wasm/label.ts"); const [count,height,width]=r.masks.dims; const masks={count,height,width,logits:r.masks.data}; const canvas={photo:{height:400,width:600},resized:{height:448,width:672},padded:{height:448,width:672}}; 
for (const K of [2,4,20,171]) { const p=new Float32Array(count*(K+1)); for(let n=0;n<count;n++){let sum=0; for(let k=0;k<=K;k++){p[n*(K+1)+k]=Math.exp(5*Math.sin(n*12.9+k*78.2)); sum+=p[n*(K+1)+k];} for(let k=0;k<=K;k++)p[n*(K+1)+k]/=sum;}
const voc={names:Array.from({length:K},(_,k)=>'n'+k),background:[],things:Array(K).fill(true),everythingElse:null}; t=cpu(); for(let q=0;q<3;q++) assemble(p,masks,canvas,voc,{calibration:{curve:[]},claim:0,smallestRegion:.0005,smallestThing:.005},'semantic',Array(K).fill(0.05)); console.log('label K',K,((cpu()-t)/3).toFixed(3)); } }
}
}
