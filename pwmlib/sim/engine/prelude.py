"""The fixed text of the kernels: vector types and their functions for each kind of device, and the loops around the traced formulas."""

from __future__ import annotations

__all__ = ["BACKWARD_FRAME", "CONFIG", "FORWARD_FRAME", "PRELUDE"]

CONFIG = {
    "E": "int", "substeps": "int", "interval": "int", "contacts": "int", "segments": "int", "limit": "int", "pool_rows": "int",
    "dt": "const float*", "contact_link": "const int*", "contact_data": "const float*", "segment_index": "const int*",
    "segment_data": "const float*", "steps": "int*", "resets": "int*", "exploded": "int*", "dropped": "int*", "pool": "const float*",
    "pool_obs": "const float*",
}  # fmt: skip
"""Name and C type of each 64-bit number in the table that both kernels read, in its order; the bridge fills it by these names."""

_CPU = """
struct Body {
typedef float F __attribute__((ext_vector_type(W)));
typedef int I __attribute__((ext_vector_type(W)));
#define AT(p,i) ((p)[i])
#define STRIDE 1
#define NOINLINE __attribute__((noinline))
#define SELECT(c,a,b) (((c)<F(0.0f))?(a):(b))
#define ANY_NEGATIVE(x) __builtin_reduce_or((I)((x)<F(0.0f)))
#define SQRT(x) __builtin_elementwise_sqrt(x)
#define SIN(x) sine(x,0)
#define COS(x) sine(x,1)
#define FLOOR(x) __builtin_elementwise_floor(x)
#define EACH(f,x) ({const F y=x; F v; for(int k=0;k<W;++k)v[k]=f(y[k]); v;})
#define EXP(x) EACH(expf,x)
#define TANH(x) EACH(tanhf,x)
#define LANES for(int k=0;k<W;++k)if(const int e=pack*W+k;e<E)
#define LANE(x) (x)[k]
// Any lane may be read: those beyond the last environment repeat it.
#define ROW(p,n,i) row(p,n,i,pack*W,E)
// sin(x) or, with shift 1, cos(x): Cody-Waite reduction to [-pi/4, pi/4], then a polynomial.
static __attribute__((always_inline)) F sine(F x,int shift){
 const F j=__builtin_elementwise_roundeven(x*F(0.636619772f)); const I n=__builtin_convertvector(j,I)+shift;
 F r=x-j*F(1.5707962513e+0f); r=r-j*F(7.5497894159e-8f); r=r-j*F(5.3903029534742384e-15f); const F z=r*r;
 const F s=((F(-1.9515295891e-4f)*z+F(8.3321608736e-3f))*z-F(1.6666654611e-1f))*z*r+r;
 const F c=((F(2.443315711809948e-5f)*z-F(1.388731625493765e-3f))*z+F(4.166664568298827e-2f))*z*z-F(0.5f)*z+F(1.0f);
 const F v=((n&1)!=0)?c:s; return ((n&2)!=0)?-v:v;
}
static __attribute__((always_inline)) F row(const float*p,int n,int i,int first,int E){
 F v; for(int k=0;k<W;++k){const int e=first+k<E?first+k:E-1; v[k]=p[e*n+i];} return v;
}
"""

_CUDA = """
struct Body {
typedef float F;
#define AT(p,i) ((p)[(i)*W])
#define STRIDE W
#define NOINLINE __noinline__
#define SELECT(c,a,b) (((c)<0.0f)?(a):(b))
#define ANY_NEGATIVE(x) ((x)<0.0f)
#define SQRT(x) sqrtf(x)
#define SIN(x) sinf(x)
#define COS(x) cosf(x)
#define FLOOR(x) floorf(x)
#define EXP(x) expf(x)
#define TANH(x) tanhf(x)
#define LANES if(const int e=thread;e<E)
#define LANE(x) (x)
#define ROW(p,n,i) ((p)[(long long)thread*(n)+(i)])
"""

PRELUDE = {"cpu": _CPU, "cuda": _CUDA}

_TABLE = "\n".join(f" {kind} const {name}=({kind})((const long long*)config_)[{i}];" for i, (name, kind) in enumerate(CONFIG.items()))

_OPEN = f"""
{_TABLE}
 const F DT=F(dt[0]);
#if STRIDE==1
 const int pack=thread;
 F*Q=(F*)trajectory_+(size_t)pack*items_;
#else
 if(thread>=E)return;
 const int pack=thread/W;
 F*Q=(F*)trajectory_+(size_t)pack*items_*W+thread%W;
#endif
 const int updates=(substeps+interval-1)/interval;
 F*D=Q+(substeps+1)*NQ*STRIDE; F*A=D+(substeps+1)*ND*STRIDE; F*LL=A+substeps*ND*STRIDE; F*u=LL+updates*NH*STRIDE;
 F*activation=u+ND*STRIDE; F*clipped=activation+NM*STRIDE; F*inside=clipped+NA*STRIDE;
 F*outcome=inside+NA*STRIDE; // 1: the episode goes on, 0: it ended, -1: the state exploded
"""

_ARGUMENTS_FORWARD = (
    "int thread,unsigned long long config_,unsigned long long trajectory_,int items_,unsigned long long state_,"
    "unsigned long long action_,unsigned long long next_,unsigned long long obs_,unsigned long long final_,unsigned long long reward_,"
    "unsigned long long flags_"
)

FORWARD_FRAME = (
    "static CUDA_CALLABLE NOINLINE void run("
    + _ARGUMENTS_FORWARD
    + "){"
    + _OPEN
    + """
 const float*state=(const float*)state_; const float*action=(const float*)action_;
 F a[NA];
 for(int i=0;i<NA;++i){
  const F x=ROW(action,NA,i); F y=SELECT(x+F(1.0f),F(-1.0f),x); y=SELECT(F(1.0f)-y,F(1.0f),y);
  a[i]=y; AT(clipped,i)=y; AT(inside,i)=(x==y)?F(1.0f):F(0.0f);
 }
 for(int i=0;i<NQ;++i)AT(Q,i)=ROW(state,NS,i);
 for(int i=0;i<ND;++i)AT(D,i)=ROW(state,NS,NQ+i);
 @ACTUATE@
 F L[NH];
 for(int s=0;s<substeps;++s){
  const F*q=Q+s*NQ*STRIDE; const F*qd=D+s*ND*STRIDE; F*next_q=Q+(s+1)*NQ*STRIDE; F*next_qd=D+(s+1)*ND*STRIDE; F*qdd=A+s*ND*STRIDE;
  if(s%interval==0){
   @MASS@
   F*stored=LL+(s/interval)*NH*STRIDE; for(int i=0;i<NH;++i)AT(stored,i)=L[i];
  }
  F X[6*NB+1],P[POSE*NB+1]; for(int i=0;i<6*NB;++i)X[i]=F(0.0f);
  @SUBSTEP@
 }
 const F*q0=Q; const F*d0=D; const F*q1=Q+substeps*NQ*STRIDE; const F*d1=D+substeps*ND*STRIDE; F ob[NO],rw,margin;
 @FINISH@
 F extent=F(0.0f); for(int i=0;i<NQ;++i)extent+=AT(q1,i)*AT(q1,i); for(int i=0;i<ND;++i)extent+=AT(d1,i)*AT(d1,i);
 float*next=(float*)next_; float*obs=(float*)obs_; float*final_obs=(float*)final_; float*reward=(float*)reward_;
 unsigned char*flags=(unsigned char*)flags_;
 F result=F(1.0f);
 LANES{
  const bool bad=!(LANE(extent)<EXTENT); const bool terminated=bad||LANE(margin)<0.0f;
  const int count=limit>0?steps[e]+1:0; const bool truncated=limit>0&&!terminated&&count>=limit;
  const bool done=limit>0&&(terminated||truncated);
  LANE(result)=bad?-1.0f:done?0.0f:1.0f;
  flags[e]=terminated; flags[E+e]=truncated; reward[e]=bad?0.0f:LANE(rw); exploded[e]+=bad;
  const int row=done?(int)((e+(long long)E*resets[e])%pool_rows):0;
  for(int i=0;i<NO;++i){
   const float v=bad?0.0f:LANE(ob[i]);
   final_obs[(size_t)e*NO+i]=v; obs[(size_t)e*NO+i]=done?pool_obs[(size_t)row*NO+i]:v;
  }
  for(int i=0;i<NQ;++i)next[(size_t)e*NS+i]=done?pool[(size_t)row*NS+i]:LANE(AT(q1,i));
  for(int i=0;i<ND;++i)next[(size_t)e*NS+NQ+i]=done?pool[(size_t)row*NS+NQ+i]:LANE(AT(d1,i));
  if(limit>0){steps[e]=done?0:count; resets[e]+=done;}
 }
 AT(outcome,0)=result;
}
};
Body::run(thread,config_,trajectory_,items_,state_,action_,next_,obs_,final_,reward_,flags_);
"""
)

BACKWARD_FRAME = (
    "static CUDA_CALLABLE NOINLINE void run(int thread,unsigned long long config_,unsigned long long trajectory_,int items_,"
    "unsigned long long g_next_,unsigned long long g_obs_,unsigned long long g_final_,unsigned long long g_reward_,"
    "unsigned long long g_state_,unsigned long long g_action_){"
    + _OPEN
    + """
 const float*g_next=(const float*)g_next_; const float*g_obs=(const float*)g_obs_; const float*g_final=(const float*)g_final_;
 const float*g_reward=(const float*)g_reward_;
 F gq[NQ],gd[ND],gq0[NQ],gd0[ND],gu[ND],gactivation[NM+1],ga[NA],gob[NO],grw[1],a[NA],gH[NH],L[NH];
 const F result=AT(outcome,0),alive=SELECT(result,F(0.0f),result);
 for(int i=0;i<NA;++i){a[i]=AT(clipped,i); ga[i]=F(0.0f);}
 for(int i=0;i<NQ;++i){gq[i]=g_next?ROW(g_next,NS,i)*alive:F(0.0f); gq0[i]=F(0.0f);}
 for(int i=0;i<ND;++i){gd[i]=g_next?ROW(g_next,NS,NQ+i)*alive:F(0.0f); gd0[i]=F(0.0f); gu[i]=F(0.0f);}
 for(int i=0;i<NM;++i)gactivation[i]=F(0.0f);
 for(int i=0;i<NO;++i)gob[i]=(g_obs?ROW(g_obs,NO,i)*alive:F(0.0f))+(g_final?ROW(g_final,NO,i):F(0.0f));
 grw[0]=g_reward?ROW(g_reward,1,0):F(0.0f);
 for(int i=0;i<NH;++i)gH[i]=F(0.0f);
 {
 const F*q0=Q; const F*d0=D; const F*q1=Q+substeps*NQ*STRIDE; const F*d1=D+substeps*ND*STRIDE;
 @FINISH_ADJOINT@
 }
 for(int s=substeps-1;s>=0;--s){
  const F*q=Q+s*NQ*STRIDE; const F*qd=D+s*ND*STRIDE; const F*qdd=A+s*ND*STRIDE;
  if(s==substeps-1||(s+1)%interval==0){const F*stored=LL+(s/interval)*NH*STRIDE; for(int i=0;i<NH;++i)L[i]=AT(stored,i);}
  F X[6*NB+1],P[POSE*NB+1],GX[6*NB+1],GP[POSE*NB+1];
  for(int i=0;i<6*NB;++i)X[i]=F(0.0f); for(int i=0;i<POSE*NB;++i)GP[i]=F(0.0f);
  @SUBSTEP_ADJOINT@
  if(s%interval==0){
   @MASS_ADJOINT@
   for(int i=0;i<NH;++i)gH[i]=F(0.0f);
  }
 }
 @ACTUATE_ADJOINT@
 F zero=F(0.0f);
 for(int i=0;i<NQ;++i){gq[i]+=gq0[i]; zero+=gq[i]*F(0.0f);}
 for(int i=0;i<ND;++i){gd[i]+=gd0[i]; zero+=gd[i]*F(0.0f);}
 for(int i=0;i<NA;++i){ga[i]=ga[i]*AT(inside,i); zero+=ga[i]*F(0.0f);}
 float*g_state=(float*)g_state_; float*g_action=(float*)g_action_;
 LANES{
  const bool sound=!(LANE(result)<0.0f),bad=!sound||!(LANE(zero)==0.0f); dropped[e]+=sound&&bad;
  for(int i=0;i<NQ;++i)g_state[(size_t)e*NS+i]=bad?0.0f:LANE(gq[i]);
  for(int i=0;i<ND;++i)g_state[(size_t)e*NS+NQ+i]=bad?0.0f:LANE(gd[i]);
  for(int i=0;i<NA;++i)g_action[(size_t)e*NA+i]=bad?0.0f:LANE(ga[i]);
 }
}
};
Body::run(thread,config_,trajectory_,items_,g_next_,g_obs_,g_final_,g_reward_,g_state_,g_action_);
"""
)
